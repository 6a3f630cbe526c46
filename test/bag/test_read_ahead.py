"""Reading ahead: order, errors in their place, a bounded lead, and threads that end."""

from __future__ import annotations

import threading

import pytest

from sartm_model.errors import SartmError
from sartm_ros.bag.read_ahead import read_ahead


def test_all_items_come_in_order():
    assert list(read_ahead(range(1000), depth=3)) == list(range(1000))
    assert list(read_ahead([])) == []


def test_items_are_made_by_another_thread_at_most_depth_ahead():
    made: list[int] = []
    threads = set()

    def items():
        for number in range(50):
            threads.add(threading.get_ident())
            made.append(number)
            yield number

    for number in read_ahead(items(), depth=2):
        # Two wait in the queue and one in the hand of the thread.
        assert len(made) <= number + 1 + 3
    assert threads.isdisjoint({threading.get_ident()})
    assert made == list(range(50))


def test_the_next_item_is_made_while_one_is_worked_on():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1
    assert second.wait(60)
    assert list(ahead) == [2]


def test_an_error_comes_after_what_was_made_before_it():
    def items():
        yield 1
        yield 2
        raise SartmError('the third is damaged')

    ahead = read_ahead(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(SartmError, match='third'):
        next(ahead)


def test_who_stops_taking_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    before = threading.active_count()
    ahead = read_ahead(read_ahead(items(), depth=1), depth=1)
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert threading.active_count() == before
