"""Running out of memory: recognising it and recovering from it. No ROS import."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from sartm_ros.node.memory import trim_memory

FIRST_PAUSE_S = 0.25

LONGEST_PAUSE_S = 4.0
"""A limit, because the process that uses the memory may free it at any time."""

_MESSAGES = (
    *('out of memory', 'not enough memory', 'allocate memory', 'insufficient memory'),
    'alloc_failed',
)
"""Parts of the messages of CUDA, of torch on the CPU (Windows, Linux), of OpenCV, and of cuBLAS and
cuDNN, whose handles need memory too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error`, or one that led to it, means that memory of the host or GPU ran out.

    torch raises several classes for it, so the message decides. Where it runs out while a CUDA
    graph is recorded, the end of the recording fails too, and hides the first error.
    """
    return any(
        isinstance(part, MemoryError) or any(text in str(part).lower() for text in _MESSAGES)
        for part in _chain(error)
    )


def next_pause_s(last_s: float) -> float:
    """Return the seconds to wait after running out of memory.

    Args:
        last_s: the pause before, which is doubled; 0 if there was none.
    """
    return min(max(2 * last_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)


def free_memory(error: BaseException) -> None:
    """Free what a failed run keeps alive: its tensors, and on CUDA torch's reserve."""
    for part in _chain(error):
        # The frames of a traceback refer to every tensor that was alive when it was raised.
        traceback.clear_frames(part.__traceback__)
    trim_memory()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    part: BaseException | None = error
    while part is not None:
        yield part
        part = part.__cause__ or part.__context__
