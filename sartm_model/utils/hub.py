"""Downloads a file of a model repository with `huggingface_hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line


def download_from_hub(repo: str, name: str, advice: str, **options: Any) -> Path:
    """Return where a file of a model repository was downloaded to.

    Args:
        repo, name: the repository and the file in it.
        advice: ends the error message: how to do without the hub.
        options: further arguments of `hf_hub_download`.

    Raises:
        SartmError: `huggingface_hub` is not installed, or the file cannot be downloaded.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import logging
    except ImportError:
        raise SartmError(
            'huggingface_hub is not installed; install it (it comes with the extra "train"), or '
            + advice
        ) from None
    logging.set_verbosity_error()  # otherwise it logs each of its attempts
    try:
        return Path(hf_hub_download(repo, name, **options))
    except Exception as error:  # the hub, its transport and its storage have their own errors
        raise SartmError(
            f'{name} of {repo} cannot be downloaded ({first_line(error)}); without a network, '
            f'{advice}'
        ) from error
