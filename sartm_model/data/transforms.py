"""From scaled images to the network's input, the same in training, on the robot and in exports."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.modalities import MODALITIES
from sartm_model.utils.grid_cache import constant_tensors


def to_nchw(images: Tensor) -> Tensor:
    """Convert images `[B, H, W]` or `[B, H, W, C]` to float32 `[B, C, H, W]`."""
    return (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)).float()


def resize(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize `[B, C, h, w]` to `size` = (H, W), bilinear. None keeps the size."""
    if size is None or tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode='bilinear', align_corners=False)


def normalise(name: str, images: Tensor) -> Tensor:
    """Normalise scaled images `[B, C, H, W]` with mean and deviation of the modality `name`."""
    modality, width = MODALITIES[name], images.shape[-1]
    assert images.shape[1] == len(modality.mean), f'{images.shape[1]} channels of {name}'

    def compute() -> tuple[np.ndarray, ...]:
        # Of a row of W pixels whose channels alternate, as in an image `[H, W, C]`: a CPU
        # vectorises that, but reads three numbers one at a time.
        return tuple(
            np.tile(np.array(numbers, np.float32), (width, 1))
            for numbers in (modality.mean, modality.std)
        )

    key = ('transforms', tuple(modality.mean), tuple(modality.std), width)
    mean, std = (row.T[:, None] for row in constant_tensors(key, compute, images.device))
    return (images - mean).div_(std)


def flip_inputs(name: str, images: Tensor) -> Tensor:
    """Return normalised images `[B, C, H, W]` of the scene mirrored left to right."""
    channels_last = images.flip(-1).movedim(1, -1)
    return MODALITIES[name].mirror(channels_last, normalised=True).movedim(-1, 1)


def to_input(
    name: str,
    scaled: Tensor,
    frame_size: tuple[int, int] | None = None,
    matrix: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Bring scaled images into the frame's geometry, resize them and normalise them.

    Args:
        name: of the modality.
        scaled: `[B, h, w]` or `[B, h, w, C]`, as `Modality.scale` returns them.
        frame_size: height and width of the first image of the frame; those of the images where
            left out.
        matrix: float32 `[3, 3]`, as `warp_matrix` returns it, to warp the images by a homography.
            They are resized where it is left out.
        size: height and width of the result; those of the frame where left out.

    Returns:
        float32 `[B, C, H, W]`.
    """
    images = to_nchw(scaled)
    if matrix is not None:
        assert frame_size is not None
        return resize(warp(normalise(name, images), matrix, frame_size), size)
    # Resizing commutes with the normalisation, and leaves fewer pixels to normalise.
    return normalise(name, resize(resize(images, frame_size), size))


def warp_matrix(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the matrix that takes pixels of the frame to coordinates of an image in [-1, 1].

    It is inverted in double precision, so that float32 suffices afterwards.

    Args:
        homography: float64 `[3, 3]`, image pixel -> frame pixel, checked.
        height, width: of the image.

    Returns:
        float32 `[3, 3]`.
    """
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return (to_unit @ np.linalg.inv(homography)).astype(np.float32)


def warp(images: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample images `[B, C, h, w]` to the view of the frame, float32 `[B, C, H, W]`.

    Frame pixel p takes the image at inverse(homography) p, bilinear. What the camera does not see
    becomes 0, the mean of a normalised image. Repeating or mirroring the edge would show objects
    where the camera has not looked.

    Args:
        images: normalised.
        matrix: float32 `[3, 3]`, as `warp_matrix` returns it, on the device.
        size: height and width of the frame.
    """
    x = torch.arange(size[1], device=images.device, dtype=torch.float32)
    y = torch.arange(size[0], device=images.device, dtype=torch.float32)[:, None, None]
    homogeneous = x[None, :, None] * matrix[:, 0] + y * matrix[:, 1] + matrix[:, 2]  # [H, W, 3]
    grid = homogeneous[..., :2] / homogeneous[..., 2:]
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images.float(), grid, padding_mode='zeros', align_corners=False)


def network_inputs(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Preprocess the images of one frame at the size of the first, each with its own range.

    Args:
        images: modality -> raw image `[h, w]` or `[h, w, C]`, all of the same field of view.

    Returns:
        modality -> float32 `[1, C, H, W]`.
    """
    first = next(iter(images.values()))
    size = (first.shape[0], first.shape[1])
    return {
        name: to_input(name, MODALITIES[name].scale(image)[None], size)
        for name, image in images.items()
    }
