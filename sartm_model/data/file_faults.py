"""What is wrong with files, collected so that all of it can be reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sartm_model.errors import SartmError


class FileFault(NamedTuple):
    """A file that cannot be used, and the error that says why."""

    path: Path
    error: SartmError


class FileFaults(list[FileFault]):
    """The faults of several files, in the order in which they are found."""

    def add(self, path: Path, text: str) -> None:
        """Add a fault; the path stands before the text of its error."""
        self.append(FileFault(path, SartmError(f'{path} {text}')))

    @contextmanager
    def noted_for(self, path: Path) -> Iterator[list[SartmError]]:
        """Add the errors that the block appends to the list it gets, and a SartmError it raises.

        The block ends where it raises one, and what follows the block goes on.
        """
        errors: list[SartmError] = []
        try:
            yield errors
        except SartmError as error:
            errors.append(error)
        self.extend(FileFault(path, error) for error in errors)
