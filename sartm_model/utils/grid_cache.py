"""Keeps tensors that depend on the size of the images alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

MAX_CACHED_GRIDS = 32

_recording = threading.local()

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
            return compute()  # the tensors of a trace are no values
        used = getattr(_recording, 'used', None)
        tensor: T | None = self._tensors.get(key)  # type: ignore[assignment]
        if tensor is None:
            tensor = compute()
            if used is not None:
                return tensor  # it lies in the memory of the graph
            device = (tensor if isinstance(tensor, Tensor) else tensor[0]).device
            if device.type == 'cuda':
                torch.cuda.current_stream(device).synchronize()  # for other streams
            kept = self._tensors if len(self._tensors) < MAX_CACHED_GRIDS else {}
            self._tensors = {**kept, key: tensor}
        if used is not None:
            used.append(tensor)
        return tensor


_constants = GridCache()


def constant_tensors(
    key: Hashable, compute: Callable[[], Iterable[np.ndarray]], device: torch.device
) -> tuple[Tensor, ...]:
    """Return arrays that depend on a key alone as tensors on a device, to which they go once.

    A CUDA graph cannot bring them from the host while it is recorded. The runs before the recording
    have left them here.

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
def hold_cached_tensors() -> Iterator[list[Tensor | tuple[Tensor, ...]]]:
    """Collect the cached tensors that this thread uses within the block.

    Whoever records a CUDA graph keeps the list as long as the graph, which reads these tensors at
    fixed addresses also after a cache has dropped them.
    """
    used: list[Tensor | tuple[Tensor, ...]] = []
    _recording.used = used
    try:
        yield used
    finally:
        _recording.used = None
