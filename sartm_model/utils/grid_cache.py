"""Keeps tensors that depend on the size of the images alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MAX_CACHED_GRIDS = 32

_recording = threading.local()


class GridCache:
    """Computes a tensor once for each key. Several threads can use one cache at once."""

    def __init__(self) -> None:
        self._tensors: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Return the tensor of a key, such as height and width; `compute` makes it if need be."""
        if torch.compiler.is_compiling():
            return compute()  # the tensors of a trace are no values
        used = getattr(_recording, 'used', None)
        tensor = self._tensors.get(key)
        if tensor is None:
            tensor = compute()
            if used is not None:
                return tensor  # it lies in the memory of the graph
            if tensor.device.type == 'cuda':
                torch.cuda.current_stream(tensor.device).synchronize()  # for other streams
            kept = self._tensors if len(self._tensors) < MAX_CACHED_GRIDS else {}
            self._tensors = {**kept, key: tensor}
        if used is not None:
            used.append(tensor)
        return tensor


@contextmanager
def hold_cached_tensors() -> Iterator[list[Tensor]]:
    """Collect the cached tensors that this thread uses within the block.

    Whoever records a CUDA graph keeps the list as long as the graph, which reads these tensors at
    fixed addresses also after a cache has dropped them.
    """
    used: list[Tensor] = []
    _recording.used = used
    try:
        yield used
    finally:
        _recording.used = None
