"""Runs two functions in parallel: on two halves of a CPU's cores, or on two streams of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Protocol, TypeVar

import torch

First = TypeVar('First')
Second = TypeVar('Second')


class Runner(Protocol):
    """Runs two functions and returns both results when both have ended."""

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]: ...


class ParallelRunner:
    """Runs two functions in parallel, without gradients, in threads of its own.

    Each thread has half of the threads that torch had for the caller when the runner was made, but
    at least one. The caller's own number is not changed. For one caller at a time.

    What lies between such pairs of functions should be called through `run`. In the caller's thread
    each of its operations would wake all of torch's threads, which then spin on the cores that the
    two functions need.
    """

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        all_started = Barrier(4)

        def start() -> None:
            torch.get_num_threads()  # the first use of torch would undo the next line
            torch.set_num_threads(max(threads // 2, 1))
            all_started.wait()

        self._pool = ThreadPoolExecutor(3, thread_name_prefix='parallel', initializer=start)
        for _ in range(3):
            self._pool.submit(lambda: None)  # the pool starts a thread for each
        all_started.wait()
        # A thread that uses torch for the first time takes over the number that was set last.
        torch.set_num_threads(threads)

    def run(self, work: Callable[[], First]) -> First:
        """Run a function that calls this runner, in a thread of the runner's."""
        return self._pool.submit(_infer, work).result()

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Return both results. What either raises is raised when both have ended."""
        futures = self._pool.submit(_infer, first), self._pool.submit(_infer, second)
        for future in futures:
            future.exception()  # waits
        return futures[0].result(), futures[1].result()


def _infer(work: Callable[[], First]) -> First:
    with torch.inference_mode():
        return work()


class TwoStreams:
    """Runs two functions in parallel on a GPU: the work of the second on a stream of its own.

    A CUDA graph can record it: the second stream joins the recording where it waits for the current
    one, and the current one waits for it at the end. For one caller at a time.

    torch's allocator lets the stream that has freed memory reuse it at once, although the other
    stream may still read it. This cannot happen here. The caller holds what the functions are given
    until both have ended. The second function is launched first, so it has freed all that it frees
    before the first allocates. And the next second function begins by waiting for everything that
    has read the results of this one. A graph's memory is a pool of its own, for which the same is
    true.

    Args:
        device: the CUDA device that both work on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._second_stream = torch.cuda.Stream(device)

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Return both results, which the current stream may use. What either raises is raised."""
        current = torch.cuda.current_stream(self._device)
        self._second_stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._second_stream):
                second_result = second()
            return first(), second_result
        finally:
            current.wait_stream(self._second_stream)
