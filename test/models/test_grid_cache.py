"""Tensors that depend on the size of the images alone are computed once and outlive the cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from sartm_model.utils import grid_cache
from sartm_model.utils.grid_cache import GridCache, constant_tensors, hold_cached_tensors


def test_a_tensor_is_computed_once_for_each_key():
    cache, computed = GridCache(), []

    def compute():
        computed.append(1)
        return torch.tensor(len(computed))

    assert [int(cache.get(key, compute)) for key in ((2, 3), (3, 2), (2, 3))] == [1, 2, 1]


def test_the_oldest_is_dropped_for_a_further_one(monkeypatch):
    monkeypatch.setattr(grid_cache, 'MAX_CACHED_GRIDS', 3)
    cache, computed = GridCache(), []

    def get(key):
        cache.get(key, lambda: computed.append(key) or torch.tensor(0))

    for key in 'abcdbcda':
        get(key)
    assert computed == ['a', 'b', 'c', 'd', 'a']


def test_whoever_records_holds_what_it_used_after_the_cache_has_dropped_it(monkeypatch):
    monkeypatch.setattr(grid_cache, 'MAX_CACHED_GRIDS', 2)
    cache = GridCache()
    other = GridCache()
    first = cache.get('first', lambda: torch.tensor(1))

    def fill():
        for key in range(4):
            cache.get(key, lambda: torch.tensor(0))

    with hold_cached_tensors() as held:
        assert cache.get('first', lambda: torch.tensor(2)) is first
        second = cache.get('second', lambda: torch.tensor(3))
        assert int(other.get('first', lambda: torch.tensor(4))) == 4
        with ThreadPoolExecutor(1) as another_thread:
            another_thread.submit(fill).result()
        assert cache.get('first', lambda: torch.tensor(5)) is first
        assert cache.get('second', lambda: torch.tensor(6)) is second
    assert [int(tensor) for tensor in held.values()] == [1, 3, 4]
    assert int(cache.get('first', lambda: torch.tensor(7))) == 7


def test_constants_go_to_a_device_once_and_a_training_step_may_save_them():
    computed = []

    def compute():
        computed.append(1)
        return np.arange(3, dtype=np.float32), np.ones(2)

    cpu = torch.device('cpu')
    with torch.inference_mode():
        first = constant_tensors('test', compute, cpu)
    with hold_cached_tensors() as held:
        again = constant_tensors('test', compute, cpu)
    assert computed == [1]
    assert again is first
    assert list(held.values()) == [first]
    x = torch.ones(3, requires_grad=True)
    (x * again[0]).sum().backward()
    assert x.grad.tolist() == [0, 1, 2]
    assert constant_tensors('test', compute, torch.device('meta'))[1].shape == (2,)
