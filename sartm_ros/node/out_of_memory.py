"""Running out of memory: recognising it and recovering from it. No ROS import."""

from __future__ import annotations

import traceback

from sartm_ros.node.memory import trim_memory

FIRST_PAUSE_S = 0.25

LONGEST_PAUSE_S = 4.0
"""A limit, because the process that uses the memory may free it at any time."""

_MESSAGES = ('out of memory', 'not enough memory', 'allocate memory', 'insufficient memory')
"""Parts of the messages of CUDA, of torch on the CPU (Windows, Linux) and of OpenCV."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means that host or device memory has run out.

    torch raises several classes for it, so the message decides.
    """
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in _MESSAGES)


def next_pause_s(last_s: float) -> float:
    """Return the seconds to wait after running out of memory.

    Args:
        last_s: the pause before, which is doubled; 0 if there was none.
    """
    return min(max(2 * last_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)


def free_memory(error: BaseException) -> None:
    """Free what a failed run keeps alive: its tensors, and on CUDA torch's reserve."""
    chain: BaseException | None = error
    while chain is not None:
        # The frames of a traceback refer to every tensor that was alive when it was raised.
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__
    trim_memory()
