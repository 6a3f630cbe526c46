"""Tensors that depend on the size of the images alone are computed once and outlive the cache."""

from __future__ import annotations

import torch

from sartm_model.utils import grid_cache
from sartm_model.utils.grid_cache import GridCache, hold_cached_tensors


def test_a_tensor_is_computed_once_for_each_key():
    cache, computed = GridCache(), []

    def compute():
        computed.append(1)
        return torch.tensor(len(computed))

    assert [int(cache.get(key, compute)) for key in ((2, 3), (3, 2), (2, 3))] == [1, 2, 1]


def test_whoever_records_holds_what_it_used_after_the_cache_has_dropped_it(monkeypatch):
    monkeypatch.setattr(grid_cache, 'MAX_CACHED_GRIDS', 2)
    cache = GridCache()
    first = cache.get('first', lambda: torch.tensor(1))
    with hold_cached_tensors() as held:
        assert cache.get('first', lambda: torch.tensor(2)) is first
        made_while_recording = cache.get('new', lambda: torch.tensor(3))
    assert held == [first]
    for key in range(4):
        cache.get(key, lambda: torch.tensor(0))
    assert int(held[0]) == 1
    # A tensor of the recording's own memory is not given to others.
    assert cache.get('new', lambda: torch.tensor(4)) is not made_while_recording
    assert int(cache.get('first', lambda: torch.tensor(5))) == 5
