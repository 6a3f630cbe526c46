"""Two helpers that keep the network busy: one works ahead of it, one behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar('T')
R = TypeVar('R')

_END: Any = object()


def read_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield items in order; a second thread makes the next one while the caller uses this one.

    What `items` raises is raised here, after the items before it. When the items end or this
    generator is closed, `items` is closed too, if it is a generator, and the thread ends. All of
    `items` runs in that one thread, because a SQLite connection must not change its thread.

    >>> list(read_ahead(x * x for x in range(4)))
    [0, 1, 4, 9]
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, 'read-ahead') as thread:
        upcoming = thread.submit(next, iterator, _END)
        try:
            while (item := upcoming.result()) is not _END:
                upcoming = thread.submit(next, iterator, _END)
                yield item
        finally:
            if isinstance(iterator, Generator):
                thread.submit(iterator.close).result()


def map_behind(
    function: Callable[[T], R], items: Iterable[T], threads: int = 4
) -> Iterator[tuple[T, R]]:
    """Yield `(item, function(item))` in order; threads compute it while the next items are made.

    At most `threads` items wait for their result. What `function` raises is raised here.

    >>> list(map_behind(str, [1, 2, 3]))
    [(1, '1'), (2, '2'), (3, '3')]
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads, 'map-behind') as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > threads:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()
