"""Images between numpy and the device: one transfer each way, and no copy on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

# torch warns of read-only memory, such as a message's bytes; nothing here writes to it. Ignored for
# good, because `warnings.catch_warnings` would let the process repeat all other warnings it gave.
warnings.filterwarnings('ignore', message='The given NumPy array is not writable')

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

    An array with a reversed axis, such as a BGR image seen as RGB, is copied as it lies in memory
    and reversed on the device. The host takes several times as long for a reversed copy.

    Args:
        arrays: of the shapes, types and reversed axes that there must be room for.
        device: where to.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device) -> None:
        sizes = [array.nbytes for array in arrays]
        padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        pinned = device.type == 'cuda'
        self._host = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=pinned)
        self._device = torch.empty_like(self._host, device=device)
        self._host_views: list[np.ndarray] = []
        self._device_views: list[Tensor] = []
        self._reversed_axes = [reversed_axes(array) for array in arrays]
        places = zip(self._host.split(padded), self._device.split(padded), strict=True)
        for array, size, (host, there) in zip(arrays, sizes, places, strict=True):
            self._host_views.append(host.numpy()[:size].view(array.dtype).reshape(array.shape))
            self._device_views.append(there[:size].view(_TYPES[array.dtype]).view(array.shape))

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy arrays of the same shapes, types and reversed axes into the host's buffer."""
        for view, array, axes in zip(self._host_views, arrays, self._reversed_axes, strict=True):
            np.copyto(view, np.flip(array, axes))

    def send(self) -> list[Tensor]:
        """Queue the transfer of all of them to the device and return them there."""
        self._device.copy_(self._host, non_blocking=True)
        return [
            _flip(view, axes)
            for view, axes in zip(self._device_views, self._reversed_axes, strict=True)
        ]


def reversed_axes(array: np.ndarray) -> tuple[int, ...]:
    """Return the axes along which an array is a reversed view."""
    return tuple(axis for axis, stride in enumerate(array.strides) if stride < 0)


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
    return staging.send()


def _view(array: np.ndarray) -> Tensor:
    if any(stride % array.itemsize for stride in array.strides):  # such as a field of a record
        array = array.copy()
    # torch has no negative strides: a reversal, such as BGR seen as RGB, is repeated in torch.
    axes = reversed_axes(array)
    return _flip(torch.from_numpy(np.flip(array, axes)), axes)


def _flip(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    if not axes:
        return tensor
    if tensor.dtype == torch.uint16:  # torch cannot flip it
        return tensor.view(torch.int16).flip(axes).view(torch.uint16)
    return tensor.flip(axes)


def to_host(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return uint8 tensors as arrays, by name; from a GPU in one transfer, which is waited for."""
    if all(output.device.type == 'cpu' for output in outputs.values()):
        return {name: output.numpy() for name, output in outputs.items()}
    return unpack(pack(outputs).cpu(), shapes(outputs))


def shapes(outputs: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each output, by name."""
    return {name: output.shape for name, output in outputs.items()}


def pack(outputs: Mapping[str, Tensor]) -> Tensor:
    """Join uint8 tensors in one, for one transfer; one alone is not copied."""
    flat = [output.flatten() for output in outputs.values()]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def unpack(packed: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, np.ndarray]:
    """Return what `pack` joined as contiguous views by name; `packed` is on the host."""
    parts = packed.split([shape.numel() for shape in shapes.values()])
    return {
        name: part.view(shape).numpy()
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
