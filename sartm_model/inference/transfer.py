"""Images between numpy and the device: one transfer each way, and no copy on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes; each array begins at a multiple of it, whatever its type."""

_TYPES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.float32): torch.float32,
}


class Staging:
    """A buffer on the host and one on the device, in which several arrays lie one after the other.

    The host's buffer is page-locked where there is a GPU, so that the GPU can fetch it by itself.

    Args:
        arrays: of the shapes and types that there must be room for.
        device: where to.

    Attributes:
        host_views: each array's place on the host.
        device_views: each array's place on the device.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device) -> None:
        sizes = [array.nbytes for array in arrays]
        padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        pinned = device.type == 'cuda'
        self._host = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=pinned)
        self._device = torch.empty_like(self._host, device=device)
        self.host_views: list[np.ndarray] = []
        self.device_views: list[Tensor] = []
        places = zip(self._host.split(padded), self._device.split(padded), strict=True)
        for array, size, (host, there) in zip(arrays, sizes, places, strict=True):
            self.host_views.append(host.numpy()[:size].view(array.dtype).reshape(array.shape))
            self.device_views.append(there[:size].view(_TYPES[array.dtype]).view(array.shape))

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy arrays of the same shapes and types into the host's buffer."""
        for view, array in zip(self.host_views, arrays, strict=True):
            np.copyto(view, array)

    def send(self) -> None:
        """Queue the transfer of all of them to the device."""
        self._device.copy_(self._host, non_blocking=True)


def frame_to_device(
    images: Mapping[str, np.ndarray], packed_params: np.ndarray, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Return images and packed frame parameters as tensors on the device, in one transfer."""
    *tensors, params = to_device([*images.values(), packed_params], device)
    return dict(zip(images, tensors, strict=True)), params


def to_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Return the arrays as tensors on the device; on a CPU they share the arrays' memory."""
    if device.type == 'cpu':
        return [_view(array) for array in arrays]
    staging = Staging(arrays, device)
    staging.fill(arrays)
    staging.send()
    return staging.device_views


def _view(array: np.ndarray) -> Tensor:
    reversed_axes = tuple(axis for axis, stride in enumerate(array.strides) if stride < 0)
    # torch has no negative strides: a reversal, such as BGR seen as RGB, is repeated in torch.
    forward = np.flip(array, reversed_axes) if reversed_axes else array
    with warnings.catch_warnings():
        # torch warns of read-only memory, such as a message's bytes; nothing here writes to it.
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        tensor = torch.from_numpy(forward)
    return tensor.flip(reversed_axes) if reversed_axes else tensor


def to_host(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return uint8 tensors as arrays, by name; from a GPU in one transfer, which is waited for."""
    if all(output.device.type == 'cpu' for output in outputs.values()):
        return {name: output.numpy() for name, output in outputs.items()}
    return unpack(pack(outputs).cpu(), shapes(outputs))


def shapes(outputs: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each output, by name."""
    return {name: output.shape for name, output in outputs.items()}


def pack(outputs: Mapping[str, Tensor]) -> Tensor:
    """Join uint8 tensors in one, for one transfer."""
    return torch.cat([output.flatten() for output in outputs.values()])


def unpack(packed: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, np.ndarray]:
    """Return what `pack` joined as contiguous views by name; `packed` is on the host."""
    parts = packed.split([shape.numel() for shape in shapes.values()])
    return {
        name: part.view(shape).numpy()
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
