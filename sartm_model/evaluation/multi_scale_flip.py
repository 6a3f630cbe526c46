"""Test-time augmentation (TTA): average the probabilities of resized and mirrored copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.data.transforms import flip_inputs
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor


@torch.inference_mode()
def probabilities(
    predictor: Predictor,
    images: Mapping[str, np.ndarray],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Return class probabilities float32 `[K, H, W]` of a frame, on the predictor's device.

    p = mean over scales s and flips f of f^-1(resize_1/s(network(resize_s(f(frame))))). Resizing is
    bilinear, with antialiasing where it shrinks.

    Args:
        predictor: runs each copy.
        images: raw images by modality, as `Predictor.predict` takes them.
        flip: run each copy also mirrored left to right.
        scales: factors of height and width.

    Raises:
        SartmError: no scale is given, one is not a positive number, or the images are unusable.
    """
    check_scales(scales)
    inputs = predictor.preprocess(images).images
    copies = list(_copies(predictor, inputs, flip, scales))
    return torch.stack(copies).mean(dim=0)


def check_scales(scales: Sequence[float]) -> None:
    """Raise SartmError if there is no scale, or one that is not a positive number."""
    wrong = [scale for scale in scales if not 0 < scale < float('inf')]
    if wrong or not scales:
        what = f'scale {wrong[0]:g} is' if wrong else 'no scale is'
        raise SartmError(f'{what} given; scales are factors greater than 0, such as 0.75 1 1.25')


def _copies(
    predictor: Predictor,
    images: Mapping[str, Tensor],
    flip: bool,
    scales: Sequence[float],
) -> Iterator[Tensor]:
    """Yield the probabilities of each copy `[K, H, W]`, resized and mirrored back."""
    height, width = next(iter(images.values())).shape[-2:]
    for scale in scales:
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        scaled = {name: _resize(x, size) for name, x in images.items()}
        for mirrored in (False, True) if flip else (False,):
            copy = scaled
            if mirrored:
                copy = {name: flip_inputs(name, x) for name, x in scaled.items()}
            found = predictor.probabilities(copy)
            found = found.flip(-1) if mirrored else found
            yield _resize(found[None], (height, width))[0]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[1, C, h, w]` to `[1, C, *size]`; in float32, because fp16 may not be supported."""
    if x.shape[-2:] == size:
        return x
    resized = F.interpolate(
        x.float(), size=size, mode='bilinear', align_corners=False, antialias=True
    )
    return resized.to(x.dtype)
