"""What verbs print and write: results as JSON, and the folders of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sartm_model.errors import SartmError
from sartm_model.utils.files import write_file


def emit_json(result: dict[str, Any], path: Path | None) -> None:
    """Print a result as JSON, or write it to `path` and print its plain numbers and texts."""
    text = json.dumps(result, indent=2)
    if path is None:
        print(text)
        return
    write_file(path, text + '\n')
    for name, value in result.items():
        if isinstance(value, (int, float, str)):
            print(f'{name}: {value:.2f}' if isinstance(value, float) else f'{name}: {value}')
    print(f'written to {path}')


def check_report_folder(folder: Path) -> None:
    """Check, before anything long starts, that a report can be written to a folder.

    Raises SartmError if `folder` is a file, or if a package that draws the report is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise SartmError(f'{folder} is a file; --report takes a folder')
    try:
        import sartm_model.evaluation.report.report  # noqa: F401
    except ModuleNotFoundError as error:
        raise SartmError(f'--report needs {error.name}; install it with pip') from None
