"""Two functions at once: on two halves of a processor's cores, or on two streams of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

First = TypeVar('First')
Second = TypeVar('Second')


class Runner(Protocol):
    """What runs two functions at once and gives both results, when both have ended."""

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]: ...


def run_sequential(
    first: Callable[[], First], second: Callable[[], Second]
) -> tuple[First, Second]:
    """In the place of an `Runner`: one after the other."""
    return first(), second()


class ParallelRunner:
    """Runs two functions at once, without gradients: one in a thread of its own.

    Each has half of torch's threads, but one at least. For one caller at a time.
    """

    def __init__(self) -> None:
        self._other = ThreadPoolExecutor(1, thread_name_prefix='side')

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Both results. What either raises is raised when both have ended."""
        threads = torch.get_num_threads()
        half = max(threads // 2, 1)

        def other() -> Second:
            torch.set_num_threads(half)
            with torch.inference_mode():
                return second()

        coming = self._other.submit(other)
        try:
            torch.set_num_threads(half)
            made = first()
        finally:
            error = coming.exception()  # waits: the threads are shared until both have ended
            torch.set_num_threads(threads)
        if error is not None:
            raise error
        return made, coming.result()


class TwoStreams:
    """Runs two functions at once on a GPU: what the second asks for goes to a stream of its own.

    A graph can record it: that stream joins the recording where it waits for the current one, and
    the current one waits for it at the end. For one caller at a time.

    The allocator lets memory that was freed be used again by its own stream at once, though the
    other one may still read it. Here it cannot: what a function is given, its caller holds until
    the end; all that the second allocates, and lets go of, is settled before the first begins; and
    the next second begins by waiting for all that has read its results. A graph's memory is a pool
    of its own, to which the same applies.

    Args:
        device: CUDA device that both work on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._other = torch.cuda.Stream(device)

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Both results, which the current stream may use. What either raises is raised."""
        current = torch.cuda.current_stream(self._device)
        self._other.wait_stream(current)
        try:
            with torch.cuda.stream(self._other):
                there = second()
            return first(), there
        finally:
            current.wait_stream(self._other)
