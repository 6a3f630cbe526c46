"""The processes of a training run: which one writes, how they end, and how they keep memory."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

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


def ignore_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the process of the training, which ends those of its loader.

    A terminal sends Ctrl-C, and systemd SIGTERM, to all of them at once, and the training needs
    batches to finish its step.

    Args:
        worker: number of the loader's process that calls this first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_loaders_at_exit() -> None:
    """Let the end of this process end those of its loaders, which ignore SIGTERM.

    An error may leave some of them running. At its exit Python would send them SIGTERM, and wait
    forever.
    """
    atexit.register(_kill_daemons)


def _kill_daemons() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for a killed process
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


@contextmanager
def interrupts_passed_on() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C, which Lightning replaces by an exit with status 1."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for new ones, where it has glibc.

    A step on a CPU allocates and frees gigabytes. By default glibc gives blocks of more than 32 MiB
    and the end of its heap back to the system, which then has to clear every page anew: a quarter
    of the time of a step (docs/training.md). The process stays as large as it was at most.
    """
    set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)  # never
