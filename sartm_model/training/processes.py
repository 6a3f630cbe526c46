"""The processes of a training run: which one writes and prints, and how they keep memory."""

from __future__ import annotations

import ctypes
import os

# Options of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def is_first_process() -> bool:
    """Return whether this is the first of the processes that torchrun or Lightning started."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'


def announce(text: str) -> None:
    """Print a text in the first process alone."""
    if is_first_process():
        print(text)


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for new ones, where it has glibc.

    A step on a CPU allocates and frees gigabytes. By default glibc gives blocks of more than 32 MiB
    and the end of its heap back to the system, which then has to clear every page anew: a third to
    a half of the time of a step (docs/training.md). The process stays as large as it was at most.
    """
    set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)  # never
