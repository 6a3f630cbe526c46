"""Keeps tensors that depend on the size and the type of the images alone on their device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

MAX_CACHED_GRIDS = 64
"""The oldest is dropped for a further one."""

_this_thread = threading.local()

T = TypeVar('T', Tensor, tuple[Tensor, ...])


class GridCache:
    """Computes a tensor once for each key. Several threads can use one cache at once."""

    def __init__(self) -> None:
        self._tensors: dict[Hashable, Tensor | tuple[Tensor, ...]] = {}

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the tensor of a key, such as height and width; `compute` makes it if need be.

        It may be a tuple of tensors on one device, too.
        """
        if torch.compiler.is_compiling():
            return compute()  # the tensors of a trace stand for values and must not be kept
        used: dict[Hashable, T] | None = getattr(_this_thread, 'used', None)
        if used is not None and (id(self), key) in used:
            return used[id(self), key]
        tensor: T | None = self._tensors.get(key)  # type: ignore[assignment]
        if tensor is None:
            tensor = compute()
            _synchronize(tensor)
            # A new dict, because other threads may be reading the old one.
            kept = list(self._tensors.items())[1 - MAX_CACHED_GRIDS :]
            self._tensors = {**dict(kept), key: tensor}
        if used is not None:
            used[id(self), key] = tensor
        else:
            _record_use(tensor)
        return tensor


def _parts(tensors: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (tensors,) if isinstance(tensors, Tensor) else tensors


def _synchronize(tensors: Tensor | tuple[Tensor, ...]) -> None:
    """Wait until new tensors are ready, for other streams."""
    device = _parts(tensors)[0].device
    if device.type == 'cuda':
        torch.cuda.current_stream(device).synchronize()


def _record_use(tensors: Tensor | tuple[Tensor, ...]) -> None:
    """Keep the memory from reuse until the current stream has read it, if it is dropped."""
    for tensor in _parts(tensors):
        if tensor.device.type == 'cuda':
            tensor.record_stream(torch.cuda.current_stream(tensor.device))


_constants = GridCache()


def constant_tensors(
    key: Hashable, compute: Callable[[], Iterable[np.ndarray]], device: torch.device
) -> tuple[Tensor, ...]:
    """Return arrays that depend on a key alone as tensors on a device, to which they go once.

    A CUDA graph cannot bring them from the host while it is recorded: see `hold_cached_tensors`.

    Args:
        key: names the arrays; begins with the name of the module that asks.
        compute: makes the arrays.
        device: where the tensors are needed.
    """

    def to_tensors() -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(device) for array in compute())

    def to_kept_tensors() -> tuple[Tensor, ...]:
        with torch.inference_mode(False):  # a training step may save them for its backward pass
            return to_tensors()

    if torch.compiler.is_compiling():
        return to_tensors()  # the code that is compiled makes them anew
    return _constants.get((key, device), to_kept_tensors)


@contextmanager
def hold_cached_tensors() -> Iterator[dict[Hashable, Tensor | tuple[Tensor, ...]]]:
    """Collect the cached tensors that this thread uses within the block.

    What is collected is found again within the block, whatever the caches have dropped since. So
    the runs before the recording of a CUDA graph belong into the block, too: they make all tensors,
    and the recording none. Whoever records keeps the result as long as the graph, which reads the
    tensors at fixed addresses.
    """
    used: dict[Hashable, Tensor | tuple[Tensor, ...]] = {}
    _this_thread.used = used
    try:
        yield used
    finally:
        _this_thread.used = None
