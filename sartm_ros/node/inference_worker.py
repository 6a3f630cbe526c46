"""One thread that works on the newest item and never keeps the giver waiting. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class LatestWorker(Generic[Item]):
    """Runs `work` on items in a thread of its own; of those that wait only the newest is kept.

    Besides the item being worked on there is room for one more: a newer one replaces it.

    Args:
        work: called with an item, in the worker's thread.
        on_error: called in that thread with what `work` raised; the thread then goes on, after as
            many seconds as it returns. What is given meanwhile waits, and `stop` does not.
        name: of the thread.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        on_error: Callable[[Exception], float | None],
        name: str = 'worker',
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._condition = threading.Condition()
        self._taken: list[Item] = []
        self._waiting: list[Item] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; once in the worker's life."""
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hand over an item without waiting; returns whether an older one was replaced by it.

        An item given to an idle worker is its current one at once, before its thread has woken up:
        two that come in a row are both served.
        """
        with self._condition:
            if not self._taken:
                self._taken.append(item)
                self._condition.notify()
                return False
            replaced = bool(self._waiting)
            self._waiting[:] = [item]
            return replaced

    def stop(self) -> int:
        """Let the current item finish and end the thread; returns how many items were left over."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()
        left = len(self._taken) + len(self._waiting)
        self._taken.clear()
        self._waiting.clear()
        return left

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._taken or self._stopping)
                if self._stopping:
                    return
                item = self._taken[0]
            pause_s = None
            try:
                self._work(item)
            except Exception as error:
                pause_s = self._on_error(error)
            del item  # its images, while the thread waits
            with self._condition:
                if pause_s:
                    self._condition.wait_for(lambda: self._stopping, pause_s)
                self._taken[:] = self._waiting
                self._waiting.clear()
