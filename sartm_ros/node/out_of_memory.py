"""Out of memory: how it is told from a fault of the program, and what is done then. No ROS."""

from __future__ import annotations

import traceback

from sartm_ros.node.memory import give_back

FIRST_PAUSE_S = 0.25

LONGEST_PAUSE_S = 4.0
"""No longer, because whoever took the memory may give it back at any time."""

_SIGNS = ('out of memory', 'not enough memory', 'allocate memory', 'insufficient memory')
"""What CUDA, torch on the CPU (Windows, Linux) and OpenCV write."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that host or device memory has run out; torch has several classes."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def next_pause_s(last_s: float) -> float:
    """Seconds to wait after running out of memory, `last_s` being the pause before, 0 for none."""
    return min(max(2 * last_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)


def free_memory(error: BaseException) -> None:
    """Give back what a failed run holds: its tensors, and on CUDA what torch keeps in reserve."""
    chain: BaseException | None = error
    while chain is not None:
        # The frames of a traceback hold every tensor that was alive when it failed.
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__
    give_back()
