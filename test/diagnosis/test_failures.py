"""Running out of memory: recognising it, and freeing what the failed run kept alive."""

from __future__ import annotations

import weakref

import cv2
import numpy as np
import pytest
import torch

from sartm_ros.diagnosis import memory
from sartm_ros.diagnosis.failures import FATAL_FAILURES, Failures, free_memory, is_out_of_memory
from sartm_ros.diagnosis.health import Health

ENORMOUS = 2**60
"""Bytes; more than a process may address."""


def torch_allocates():
    torch.empty(ENORMOUS, dtype=torch.uint8)


def numpy_allocates():
    np.empty(ENORMOUS, np.uint8)


@pytest.mark.parametrize('allocate', [torch_allocates, numpy_allocates])
def test_a_real_allocation_that_fails_is_known(allocate):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        allocate()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'),
        RuntimeError('CUDA error: out of memory'),
        RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes'),
        cv2.error('(-4:Insufficient memory) Failed to allocate 8 bytes'),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
        RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'),
        MemoryError(),
    ],
)
def test_out_of_memory(error):
    assert is_out_of_memory(error)


def test_out_of_memory_that_another_error_hides():
    """As where a CUDA graph is recorded, whose end fails too."""
    error = RuntimeError('CUDA error: operation failed due to a previous error in the recording')
    error.__context__ = MemoryError()
    assert is_out_of_memory(error)


@pytest.mark.parametrize('error', [RuntimeError('shape mismatch'), ValueError('memory format')])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_the_pauses_double_up_to_a_few_seconds():
    failures = Failures(Health('thermal'), lambda *_: None)
    pauses_s = [failures.handle(MemoryError()) for _ in range(7)]
    assert pauses_s == [0.25, 0.5, 1, 2, 4, 4, 4]
    failures.reset()
    assert failures.handle(MemoryError()) == 0.25


def test_a_lack_of_memory_does_not_end_the_process_however_long_it_lasts():
    """Other errors of the inference do, because some stay until the process ends."""
    for error, ends in ((MemoryError(), False), (RuntimeError('no such kernel'), True)):
        failures = Failures(Health('thermal'), lambda *_: None)
        for _ in range(2 * FATAL_FAILURES):
            failures.handle(error)
        assert bool(failures.fatal_error) == ends


def test_what_a_failed_run_held_is_let_go():
    """Also what lay in the frames of an error that caused the error, which is still at hand."""
    held = []

    def inner():
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        raise MemoryError

    def outer():
        features = torch.zeros(8)
        held.append(weakref.ref(features))
        try:
            inner()
        except MemoryError as error:
            raise RuntimeError('out of memory') from error

    try:
        outer()
    except RuntimeError as error:
        assert all(reference() is not None for reference in held)
        free_memory(error)
        assert [reference() for reference in held] == [None, None]


def test_the_network_stays_excluded_from_garbage_collection():
    class Node:
        pass

    node = Node()
    node.itself = node  # only a garbage collection can free it
    alive = weakref.ref(node)
    memory.freeze_gc()
    try:
        del node
        free_memory(MemoryError())
        assert alive() is not None
    finally:
        memory.release_memory()
    assert alive() is None
