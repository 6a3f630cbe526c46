"""The helper threads of a replay keep the order, report errors, do not run away, and end."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from sartm_model.errors import SartmError
from sartm_ros.bag.threads import map_behind, read_ahead

WAIT_S = 60


def numbers_until_closed(closed: threading.Event):
    try:
        yield from count()
    finally:
        closed.set()


def test_all_items_come_in_order():
    assert list(read_ahead(range(1000))) == list(range(1000))
    assert list(read_ahead([])) == []


def test_items_are_made_by_one_other_thread_at_most_one_ahead():
    made: list[int] = []
    threads = set()

    def items():
        for number in range(50):
            threads.add(threading.get_ident())
            made.append(number)
            yield number

    for number in read_ahead(items()):
        assert len(made) <= number + 2
    assert made == list(range(50))
    assert len(threads) == 1
    assert threads.isdisjoint({threading.get_ident()})


def test_the_next_item_is_made_while_the_caller_uses_one():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1
    assert second.wait(WAIT_S)
    assert list(ahead) == [2]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise SartmError('the third is damaged')

    ahead = read_ahead(items())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(SartmError, match='third'):
        next(ahead)


def test_closing_ends_the_thread_and_closes_the_source():
    closed = threading.Event()
    before = threading.active_count()
    ahead = read_ahead(numbers_until_closed(closed))
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_results_come_in_order_though_the_first_takes_longest():
    later_done = threading.Event()

    def square(number: int) -> int:
        if number == 0:
            assert later_done.wait(WAIT_S)
        else:
            later_done.set()
        return number * number

    assert list(map_behind(square, range(9), threads=2)) == [(n, n * n) for n in range(9)]


def test_no_more_items_are_taken_than_threads_can_use():
    taken = 0

    def items():
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    for number, _ in map_behind(str, items(), threads=3):
        assert taken <= number + 4


def test_an_error_of_the_function_is_raised_in_its_place():
    def refuse_three(number: int) -> int:
        if number == 3:
            raise SartmError('three does not fit')
        return number

    results = map_behind(refuse_three, range(9), threads=2)
    assert [next(results)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SartmError, match='three'):
        next(results)
