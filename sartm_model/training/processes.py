"""The processes of a distributed training run, of which the first one writes and prints."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return whether this is the first of the processes that torchrun or Lightning started."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'


def announce(text: str) -> None:
    """Print a text in the first process alone."""
    if is_first_process():
        print(text)
