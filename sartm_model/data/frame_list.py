"""Lists of frames: text files that name one stem per line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sartm_model.errors import SartmError
from sartm_model.utils.image_io import SUFFIXES
from sartm_model.utils.text import format_names


def read_stems(path: Path) -> list[str]:
    """Read a list of stems, one per line, which may contain spaces.

    A byte order mark, blanks around a stem, empty lines and the suffix of an image are ignored.

    Raises:
        SartmError: the list cannot be read or is empty, or names a path or a stem twice.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise SartmError(f'{path} cannot be read as a list of stems: {error}') from error
    return check_stems([_without_suffix(line.strip()) for line in lines if line.strip()], path)


def list_of_stems(stems: Iterable[str]) -> str:
    """Return the content of a list from which `read_stems` reads these stems.

    A stem such as `0.jpg`, of `0.jpg.png`, gets the suffix that is taken off again there.
    """
    lines = (stem if _without_suffix(stem) == stem else f'{stem}.png' for stem in stems)
    return ''.join(f'{line}\n' for line in lines)


def check_stems(stems: list[str], source: object) -> list[str]:
    """Return the stems. Raises SartmError if there are none, or one is a path or occurs twice."""
    wrong = [stem for stem in stems if Path(stem).name != stem]
    if wrong or not stems:
        what = f'has {format_names(wrong)}' if wrong else 'is empty'
        raise SartmError(f'{source} {what}; expected one stem per line, such as 00001D')
    if twice := sorted(stem for stem, count in Counter(stems).items() if count > 1):
        raise SartmError(
            f'{source} names {format_names(twice)} more than once; expected each frame once'
        )
    return stems


def _without_suffix(name: str) -> str:
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name
