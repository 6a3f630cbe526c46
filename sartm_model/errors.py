"""The exception whose message is for the user."""

from __future__ import annotations

from collections.abc import Sequence


class SartmError(Exception):
    """Raised for input that cannot be used: a file, a size, a setting, a message.

    The text is one line that says what was wrong, what was expected and, if possible, what to do.
    The command line prints it and exits with status 2; the node logs and counts it and continues
    with the next frame. Every other exception is a bug.
    """


def raise_faults(faults: Sequence[SartmError], hint: str = '') -> None:
    """Raise an error with the text of the first fault and the number of the others, if any.

    Args:
        faults: all that is wrong with an input.
        hint: where the others are listed, appended to their number.
    """
    if faults:
        more = f' (and {len(faults) - 1} more{hint})' if faults[1:] else ''
        raise SartmError(f'{faults[0]}{more}')
