"""From the logits of the heads to labels: upsampling, softmax, mean, largest class.

Inference, the exported graph, the validation in training and the evaluation all use these
functions. Below, M is the number of heads, K that of classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.labels import IGNORE_ID


def upsample_logits(logits: Tensor, extent: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Upsample logits to an image's size, bilinear.

    Args:
        logits: `[B, K, h, w]`.
        extent: height and width of the part of the logits that covers the image, in logits; it
            starts at the top left, and the rest is padding.
        size: height and width of the image.

    Returns:
        `[B, K, H, W]`; the padding is cut off.
    """
    factors = [new / old for new, old in zip(size, extent, strict=True)]
    if any(factor % 1 for factor in factors):
        # A spare row and column, because a rounded factor can give a row or column too few.
        logits = F.pad(logits, (0, 1, 0, 1), mode='replicate')
    full = F.interpolate(logits, scale_factor=factors, mode='bilinear')
    return full[..., : size[0], : size[1]]


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the mean over the heads of the softmax over the classes, computed in float32.

    The softmax is written out, because ONNX Runtime's takes ten times as long over an axis that is
    not the last. On a CPU torch takes the same time for both.

    Args:
        logits: `[M, ..., K, H, W]`.

    Returns:
        float32 `[..., K, H, W]`.
    """
    logits = logits.float()
    powers = (logits - logits.amax(dim=-3, keepdim=True)).exp()
    return (powers / (powers.sum(dim=-3, keepdim=True) * len(logits))).sum(dim=0)


def labels_and_confidence(
    probabilities: Tensor, dtype: torch.dtype = torch.uint8
) -> tuple[Tensor, Tensor]:
    """Return the most probable class of each pixel and its probability.

    Args:
        probabilities: `[..., K, H, W]`.
        dtype: of the labels.

    Returns:
        Labels, `[..., H, W]`, 255 where the probabilities are not numbers. Confidence,
        `[..., H, W]`, 0 there.
    """
    labels, confidence = first_maximum(probabilities, dim=-3, dtype=dtype)
    return labels, torch.where(labels != IGNORE_ID, confidence, 0.0)


def first_maximum(
    values: Tensor, dim: int, dtype: torch.dtype = torch.uint8
) -> tuple[Tensor, Tensor]:
    """Return the index of the largest value along a dimension, and the value.

    Of equal values the first is taken. The index is 255 where the values are not numbers.

    `torch.max` with indices reads one value at a time on a CPU and takes as long as the softmax.
    These comparisons are vectorised.

    Args:
        values: of at most 255 along `dim`.
        dim: negative, counted from the last.
        dtype: of the index.
    """
    indices = torch.arange(values.shape[dim], dtype=dtype, device=values.device)
    indices = indices.view(-1, *[1] * (-dim - 1))
    largest = values.amax(dim=dim, keepdim=True)
    index = torch.where(values == largest, indices, IGNORE_ID).amin(dim=dim)  # NaN equals nothing
    return index, largest.squeeze(dim)
