"""A thread that processes the newest item and never makes the caller wait. No ROS import."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')

JOIN_CHECK_S = 0.2
"""How often a thread that waits for the end of the worker's runs signal handlers of Python."""


class LatestWorker(Generic[Item]):
    """Processes items in a thread of its own and skips those that it has no time for.

    Beside the item in work there is one slot; a newer item replaces the one in the slot.

    Args:
        process: called with an item, in the worker's thread.
        on_error: called in that thread with an exception of `process`. It returns the seconds to
            pause before the next item, or None. `stop` does not wait for the end of a pause.
        name: of the thread.

    Attributes:
        failure: what ended the thread, an exception of `on_error` or one that is not an
            `Exception`; None while it runs and after `stop`.
    """

    def __init__(
        self,
        process: Callable[[Item], None],
        on_error: Callable[[Exception], float | None],
        name: str = 'worker',
    ) -> None:
        self._process = process
        self._on_error = on_error
        self._condition = threading.Condition()
        self._items: list[Item] = []  # the one in work, and the one in the slot behind it
        self._stopping = False
        self._begun_s: float | None = None  # when the item in work was begun
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def busy_s(self) -> float:
        """How long the item in work has been processed, in seconds; 0 while there is none."""
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def start(self) -> None:
        """Start the thread; to be called once."""
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Hand over an item without waiting; return whether it replaced an older one.

        An item for an idle worker goes past the slot, before the thread has woken up, so of two
        items in quick succession both are processed.
        """
        with self._condition:
            replaced = len(self._items) == 2
            self._items[1:] = [item]  # into an empty list it goes as the first, the one in work
            self._condition.notify()
            return replaced

    def clear(self) -> int:
        """Discard the item that waits; return how many there were, none or one."""
        with self._condition:
            count = len(self._items[1:])
            del self._items[1:]
            return count

    def stop(self) -> int:
        """Finish the item in work and end the thread; return how many items were not processed."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        while self._thread.is_alive():
            self._thread.join(JOIN_CHECK_S)
        left = len(self._items)
        self._items.clear()
        return left

    def _run(self) -> None:
        try:
            self._process_items()
        except BaseException as error:
            self.failure = error

    def _process_items(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._items or self._stopping)
                if self._stopping:
                    return
                item = self._items[0]
            self._begun_s = time.monotonic()
            pause_s = None
            try:
                self._process(item)
            except Exception as error:
                pause_s = self._on_error(error)
            self._begun_s = None
            del item  # so that its images are freed with its place, not with the next item
            with self._condition:
                if pause_s:
                    self._condition.wait_for(lambda: self._stopping, pause_s)
                del self._items[0]
