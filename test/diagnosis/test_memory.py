"""Objects that the garbage collector ignores, until the memory is released."""

from __future__ import annotations

import gc
import weakref

from sartm_ros.diagnosis import memory


class Ring:
    """An object that only a reference cycle keeps alive."""

    def __init__(self) -> None:
        self.ring = self


def test_garbage_of_a_settled_process_goes_when_its_memory_is_given_back():
    ring = Ring()
    watched = weakref.ref(ring)
    memory.freeze_gc()
    try:
        assert gc.get_freeze_count() > 0
        del ring
        gc.collect()
        assert watched() is not None
    finally:
        memory.release_memory()
    assert gc.get_freeze_count() == 0
    assert watched() is None


def test_garbage_from_before_is_not_kept():
    ring = Ring()
    watched = weakref.ref(ring)
    del ring
    memory.freeze_gc()
    try:
        assert watched() is None
    finally:
        memory.release_memory()
