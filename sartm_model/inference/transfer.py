"""Images between numpy and the device: one upload a pair, one download, no copy on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_ALIGNED = 16
"""Bytes; each array begins at a multiple of it, whatever its type."""

_TYPES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.float32): torch.float32,
}


@dataclass
class Staging:
    """A buffer of the host and one of the device in which several arrays lie side by side.

    Attributes:
        host: uint8, page-locked beside a GPU: that fetches from there by itself.
        device: uint8, as long.
        written: where each array is written on the host; None for one that is absent.
        read: where it is read on the device.
    """

    host: Tensor
    device: Tensor
    written: list[np.ndarray | None]
    read: list[Tensor | None]

    @classmethod
    def like(cls, arrays: Sequence[np.ndarray | None], device: torch.device) -> Staging:
        """Room for arrays of these shapes and types."""
        sizes = [0 if array is None else array.nbytes for array in arrays]
        padded = [-(-size // _ALIGNED) * _ALIGNED for size in sizes]
        host = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=device.type == 'cuda')
        sent = torch.empty_like(host, device=device)
        written: list[np.ndarray | None] = []
        read: list[Tensor | None] = []
        for array, size, at, there in zip(
            arrays, sizes, host.split(padded), sent.split(padded), strict=True
        ):
            if array is None:
                written.append(None)
                read.append(None)
            else:
                written.append(at.numpy()[:size].view(array.dtype).reshape(array.shape))
                read.append(there[:size].view(_TYPES[array.dtype]).view(array.shape))
        return cls(host, sent, written, read)

    def write(self, arrays: Sequence[np.ndarray | None]) -> None:
        """Gather the arrays on the host; those given at the start, or others like them."""
        for place, array in zip(self.written, arrays, strict=True):
            if place is not None and array is not None:
                np.copyto(place, array)

    def send(self) -> None:
        """Queue the transfer of all of them."""
        self.device.copy_(self.host, non_blocking=True)


def upload(arrays: Sequence[np.ndarray | None], device: torch.device) -> list[Tensor | None]:
    """The arrays as tensors of the device; on the CPU they share the arrays' memory."""
    if device.type == 'cpu':
        return [None if array is None else _view(array) for array in arrays]
    staging = Staging.like(arrays, device)
    staging.write(arrays)
    staging.send()
    return staging.read


def _view(array: np.ndarray) -> Tensor:
    reversed_axes = tuple(axis for axis, stride in enumerate(array.strides) if stride < 0)
    # torch has no negative strides: a reversal, such as BGR seen as RGB, is done over in torch.
    forward = np.flip(array, reversed_axes) if reversed_axes else array
    with warnings.catch_warnings():
        # torch warns of read-only memory, such as a message's bytes; nothing here writes to it.
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        tensor = torch.from_numpy(forward)
    return tensor.flip(reversed_axes) if reversed_axes else tensor


def pack(planes: Mapping[str, Tensor]) -> Tensor:
    """uint8 planes in one, for one transfer."""
    return torch.cat([plane.flatten() for plane in planes.values()])


def unpack(packed: Tensor, planes: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """What `pack` made of such planes, brought to the host: contiguous views of it, by name."""
    parts = packed.split([plane.numel() for plane in planes.values()])
    return {
        name: part.view(plane.shape).numpy()
        for (name, plane), part in zip(planes.items(), parts, strict=True)
    }


def download(planes: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """uint8 planes as arrays by name; from a GPU in one transfer, which is waited for."""
    if all(plane.device.type == 'cpu' for plane in planes.values()):
        return {name: plane.numpy() for name, plane in planes.items()}
    return unpack(pack(planes).cpu(), planes)
