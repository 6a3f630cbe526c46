"""What becomes of pairs that fail in the inference thread. No ROS import."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

from sartm_model.errors import SartmError
from sartm_ros.diagnosis.health import Health
from sartm_ros.diagnosis.memory import trim_memory

FATAL_FAILURES = 10
"""Number of inferences that fail in a row, for another reason than memory, after which the process
is to end. An error of the GPU stays until then: after it every call of CUDA fails."""

FIRST_PAUSE_S = 0.25
"""The pause after running out of memory, which doubles each time until there is a result."""

LONGEST_PAUSE_S = 4.0
"""A limit, because the process that uses the memory may free it at any time."""

_OUT_OF_MEMORY = (
    *('out of memory', 'not enough memory', 'allocate memory', 'insufficient memory'),
    'alloc_failed',
)
"""Parts of the messages of CUDA, of torch on the CPU (Windows, Linux), of OpenCV, and of cuBLAS and
cuDNN, whose handles need memory too."""


class Failures:
    """Counts and logs the exceptions of the inference thread, which alone calls the methods.

    Args:
        health: counts and keeps the last error.
        warn: called with a key and a text; logs the text, at most once in a while for each key.
    """

    def __init__(self, health: Health, warn: Callable[[str, str], None]) -> None:
        self._health = health
        self._warn = warn
        self._pause_s = 0.0  # the last pause after running out of memory; 0 after a success
        self._in_row = 0
        self._last = ''

    @property
    def fatal_error(self) -> str:
        """Why no result is to be expected from this process any more, or ''; for any thread."""
        if self._in_row < FATAL_FAILURES:
            return ''
        return f'{self._in_row} inferences in a row failed, the last with {self._last}'

    def reset(self) -> None:
        """Begin to count anew, after a success."""
        self._pause_s, self._in_row = 0.0, 0

    def handle(self, error: Exception, *, published: bool = False) -> float:
        """Count a pair that failed; return the seconds to wait before the next one.

        Args:
            error: the exception.
            published: whether the pair has its labels, so that only other outputs are missing.
        """
        name = f'{type(error).__name__}: {error}'
        pause_s = 0.0
        if is_out_of_memory(error):
            pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._pause_s = pause_s
        if published:
            self._health.record_missing_outputs(name)
            text = ''.join(traceback.format_exception(error))
            self._warn('outputs', f'labels are published, but not all other outputs:\n{text}')
        elif pause_s:
            self._health.record_dropped('out_of_memory', error=name)
            self._warn(
                'out_of_memory',
                f'frame dropped, out of memory: {error}. The next is tried in {pause_s:g} s; '
                'what else uses the device? Smaller images, precision fp16 or a smaller network '
                'need less',
            )
        elif isinstance(error, SartmError):
            self._health.record_dropped('bad_frame', error=str(error))
            self._warn('bad_frame', f'frame dropped: {error}')
        else:
            text = ''.join(traceback.format_exception(error))
            self._last = name
            self._in_row += 1
            self._health.record_dropped('failed', error=name)
            self._warn('failed', f'frame dropped, inference failed:\n{text}')
        if pause_s:
            free_memory(error)
        return pause_s


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error`, or one that led to it, means that memory of the host or GPU ran out.

    torch raises several classes for it, so the message decides. Where it runs out while a CUDA
    graph is recorded, the end of the recording fails too, and hides the first error.
    """
    return any(
        isinstance(part, MemoryError) or any(text in str(part).lower() for text in _OUT_OF_MEMORY)
        for part in _chain(error)
    )


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
