"""Make the next items while the last one is being worked on."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Queue
from typing import TypeVar

T = TypeVar('T')


def read_ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """The items in their order, made by a thread at most `depth` ahead of who takes them.

    What `items` raises comes out here, in its place. The thread ends with the items, or when the
    generator is closed; a generator given as `items` is closed then too.

    >>> list(read_ahead(x * x for x in range(4)))
    [0, 1, 4, 9]
    """
    made: Queue[tuple[T, None] | tuple[None, BaseException]] = Queue(depth)
    stopped = threading.Event()

    def make() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                made.put((item, None))
                if stopped.is_set():
                    break
        except BaseException as error:
            end = error
        finally:
            if isinstance(items, Generator):
                items.close()
            made.put((None, end))

    thread = threading.Thread(target=make, name='read-ahead', daemon=True)
    thread.start()
    try:
        while True:
            item, end = made.get()
            if end is None:
                yield item  # type: ignore[misc]
            elif isinstance(end, StopIteration):
                return
            else:
                raise end
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room in the queue
            try:
                made.get(timeout=0.05)
            except Empty:
                continue
        thread.join()
