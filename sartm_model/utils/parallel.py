"""Runs functions in parallel: on two halves of a CPU's cores, or on streams of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Protocol, TypeVar

import torch

Result = TypeVar('Result')


class Runner(Protocol):
    """Runs functions and returns their results, in their order, when all have ended."""

    def __call__(self, *functions: Callable[[], Result]) -> tuple[Result, ...]: ...


class ParallelRunner:
    """Runs functions in parallel, without gradients, in threads of its own.

    Each thread has half of the threads that torch had for the caller when the runner was made, but
    at least one. The caller's own number is not changed. For one caller at a time.

    What lies between such functions should be called through `run`, which leaves two threads for
    them: a third function then begins when one of the first two has ended. In the caller's thread
    each operation would wake all of torch's threads, which then spin on the cores that the
    functions need.
    """

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        all_started = Barrier(4)

        def start() -> None:
            torch.get_num_threads()  # the first use of torch would undo the next line
            torch.set_num_threads(max(threads // 2, 1))
            with suppress(BrokenBarrierError):
                all_started.wait()

        self._pool = ThreadPoolExecutor(3, thread_name_prefix='parallel', initializer=start)
        try:
            for _ in range(3):
                self._pool.submit(lambda: None)  # the pool starts a thread for each
            all_started.wait()
        except BaseException:  # such as Ctrl-C, after which Python would wait for the threads
            all_started.abort()
            raise
        # A thread that uses torch for the first time takes over the number that was set last.
        torch.set_num_threads(threads)

    def run(self, work: Callable[[], Result]) -> Result:
        """Run a function that calls this runner, in a thread of the runner's."""
        return self._pool.submit(_infer, work).result()

    def __call__(self, *functions: Callable[[], Result]) -> tuple[Result, ...]:
        """Return the results. What one raises is raised when all have ended."""
        futures = [self._pool.submit(_infer, function) for function in functions]
        for future in futures:
            future.exception()  # waits
        return tuple(future.result() for future in futures)


def _infer(work: Callable[[], Result]) -> Result:
    with torch.inference_mode():
        return work()


class CudaStreams:
    """Runs up to three functions in parallel on a GPU: the first on the current stream.

    A CUDA graph can record it: each other stream joins the recording where it waits for the current
    one, and the current one waits for all at the end. For one caller at a time.

    torch's allocator gives freed memory back to the stream on which it was allocated, and does not
    know who else still reads it. So no function may drop the last reference to a tensor of another
    stream. None does: the caller holds all that the functions are given until they have joined. The
    results of another stream go back to that stream, which waits for the current one before it runs
    again. A graph's memory is a pool of its own, for which the same is true.

    Args:
        device: the CUDA device that all work on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams = [torch.cuda.Stream(device) for _ in range(2)]

    def __call__(self, *functions: Callable[[], Result]) -> tuple[Result, ...]:
        """Return the results, which the current stream may use. What one raises is raised."""
        first, *others = functions
        streams = self._streams[: len(others)]
        current = torch.cuda.current_stream(self._device)
        for stream in streams:
            stream.wait_stream(current)
        try:
            results = []
            for stream, function in zip(streams, others, strict=True):
                with torch.cuda.stream(stream):
                    results.append(function())
            return (first(), *results)
        finally:
            for stream in streams:
                current.wait_stream(stream)
