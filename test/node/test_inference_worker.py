"""The slot for one item and its thread."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from processes import wait_until

from sartm_ros.node.inference_worker import LatestWorker

TIMEOUT_S = 20


class Gate:
    """Work that reports each item and then waits for a semaphore."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.items = []

    def __call__(self, item):
        self.items.append(item)
        self.begun.release()
        assert self.release.acquire(timeout=TIMEOUT_S)

    def wait_begun(self):
        assert self.begun.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    errors = []
    worker = LatestWorker(gate, errors.append)
    worker.errors = errors
    worker.start()
    yield worker
    gate.release.release(100)
    worker.stop()
    assert not worker.errors


def test_the_newest_item_replaces_the_one_that_waits(worker, gate):
    worker.put(1)
    gate.wait_begun()
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    gate.release.release(2)
    gate.wait_begun()
    assert gate.items == [1, 4]


def test_two_items_given_in_a_row_to_an_idle_worker_are_both_served(gate):
    worker = LatestWorker(gate, print)
    assert not worker.put('a')
    assert not worker.put('b')  # the thread has not even started
    worker.start()
    gate.release.release(2)
    gate.wait_begun()
    gate.wait_begun()
    assert gate.items == ['a', 'b']
    worker.stop()


def test_put_does_not_wait_for_the_work(worker, gate):
    worker.put(0)
    gate.wait_begun()
    for item in range(1, 1000):
        worker.put(item)
    assert gate.items == [0]


def test_the_time_of_the_item_in_work_is_known(worker, gate):
    assert worker.busy_s == 0
    worker.put(1)
    gate.wait_begun()
    first_s = worker.busy_s
    wait_until(lambda: worker.busy_s > first_s > 0, 'time to go on')
    gate.release.release()
    wait_until(lambda: worker.busy_s == 0, 'the item to be done')


def test_an_error_is_reported_and_the_thread_goes_on():
    errors, done = [], threading.Event()

    def work(item):
        if item == 'bad':
            raise ValueError(item)
        done.set()

    reported = threading.Event()

    def on_error(error):
        errors.append(error)
        reported.set()

    worker = LatestWorker(work, on_error)
    worker.start()
    worker.put('bad')
    assert reported.wait(TIMEOUT_S)
    worker.put('good')
    assert done.wait(TIMEOUT_S)
    worker.stop()
    assert [str(error) for error in errors] == ['bad']


def test_stop_finishes_the_current_item_and_counts_the_rest(gate):
    worker = LatestWorker(gate, print)
    worker.start()
    worker.put(1)
    gate.wait_begun()
    worker.put(2)
    stopper = threading.Thread(target=lambda: left.append(worker.stop()))
    left = []
    stopper.start()
    wait_until(lambda: worker._stopping, 'the worker to stop')  # nothing public shows it
    gate.release.release()
    stopper.join(TIMEOUT_S)
    assert not stopper.is_alive()
    assert gate.items == [1]
    assert left == [1]


def test_a_pause_after_an_error_keeps_only_the_newest_item():
    worked, paused, reported = [], threading.Event(), []

    def work(item):
        worked.append(item)
        if item == 'bad':
            raise MemoryError

    def on_error(error):
        assert paused.wait(TIMEOUT_S)
        reported.append(error)
        return 1e-3

    worker = LatestWorker(work, on_error)
    worker.start()
    worker.put('bad')
    assert [worker.put(item) for item in (1, 2, 3)] == [False, True, True]
    paused.set()
    wait_until(lambda: len(worked) == 2, 'the second item')
    worker.stop()
    assert worked == ['bad', 3]
    assert [type(error) for error in reported] == [MemoryError]


def test_stop_does_not_wait_for_a_pause():
    failed = threading.Event()

    def work(item):
        raise MemoryError

    def on_error(error):
        failed.set()
        return 1e6  # far longer than any test runs

    worker = LatestWorker(work, on_error, name='paused')
    worker.start()
    worker.put('bad')
    worker.put('waits')
    assert failed.wait(TIMEOUT_S)
    assert worker.stop() == 1
    assert 'paused' not in [thread.name for thread in threading.enumerate()]


def test_stop_without_start():
    worker = LatestWorker(print, print)
    worker.put(1)
    assert worker.stop() == 1


def test_an_item_is_not_kept_after_its_work(gate):
    class Item:
        pass

    done = threading.Event()
    worker = LatestWorker(lambda item: done.set(), print)
    worker.start()
    item = Item()
    reference = weakref.ref(item)
    worker.put(item)
    del item
    assert done.wait(TIMEOUT_S)
    worker.stop()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize('death', [RuntimeError('in on_error'), SystemExit('in the work')])
def test_what_ends_the_thread_is_kept(death):
    def work(item):
        raise death if isinstance(death, SystemExit) else ValueError(item)

    def on_error(error):
        raise death

    worker = LatestWorker(work, on_error)
    worker.start()
    assert worker.failure is None
    worker.put('bad')
    wait_until(lambda: worker.failure is death, 'the thread to end')
    worker.put('waits')
    assert worker.stop() == 2


def test_the_item_that_waits_can_be_discarded(worker, gate):
    worker.put(1)
    gate.wait_begun()
    assert worker.clear() == 0
    worker.put(2)
    assert worker.clear() == 1
    worker.put(3)
    gate.release.release(2)
    gate.wait_begun()
    assert gate.items == [1, 3]
