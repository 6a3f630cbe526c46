"""From the heads' logits to labels and confidence, in strips on a CPU, at once on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sartm_model.labels import IGNORE_ID
from sartm_model.models.logits import class_probabilities, labels_and_confidence, upsample_logits
from sartm_model.utils.parallel import Runner

STRIP_VALUES = 1 << 18
"""Logits in one strip on a CPU: 1 MiB of float32, about what a core's cache holds."""


def labels_from_logits(
    heads: Sequence[Tensor],
    extent: tuple[float, float],
    size: tuple[int, int],
    runner: Runner | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the most probable class of each pixel and its probability.

    On a CPU a strip of rows at a time is upsampled and reduced to labels, because whole maps of
    every class do not fit into the cache. Measured in docs/performance.md.

    Args:
        heads: logits `[K, h, w]` of each head.
        extent: height and width of their part that covers the image, see `upsample_logits`.
        size: height and width of the result.
        runner: on a CPU, computes the upper and the lower half of the strips in parallel.

    Returns:
        Labels, uint8 `[H, W]`, 255 where a head's logits are not numbers. Confidence, float32
        `[H, W]`, 0 there.
    """
    logits = torch.stack(tuple(heads)).float()  # [M, K, h, w]
    if logits.device.type != 'cpu':
        return labels_at_once(upsample_logits(logits, extent, size))
    (height, width), logit_width = size, logits.shape[3]
    # Bilinear upsampling of the rows first, whose result is small, then of the columns by strips.
    rows = upsample_logits(logits, (extent[0], logit_width), (height, logit_width))
    rows_per_strip = max(1, STRIP_VALUES // (logits.shape[0] * logits.shape[1] * width))
    strips = rows.split(rows_per_strip, dim=2)

    def label(part: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        results = []
        for strip in part:
            count = strip.shape[2]
            full = upsample_logits(strip, (count, extent[1]), (count, width))
            results.append(labels_and_confidence(class_probabilities(full)))
        return results

    if runner is None or len(strips) == 1:
        results = label(strips)
    else:
        middle = len(strips) // 2
        upper, lower = runner(lambda: label(strips[:middle]), lambda: label(strips[middle:]))
        results = upper + lower
    labels, confidence = zip(*results, strict=True)
    return torch.cat(labels), torch.cat(confidence)


def labels_at_once(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels and confidence as `labels_from_logits` does, by the fewest operations.

    On a GPU a softmax and a maximum with its index are one kernel each. `class_probabilities` and
    `labels_and_confidence` take several, each of which reads the whole map.

    Args:
        logits: `[M, K, H, W]`.
    """
    probabilities = logits.softmax(dim=1).mean(dim=0)
    confidence, index = probabilities.max(dim=0)  # the first of equal ones; NaN if one is NaN
    is_unknown = confidence.isnan()
    labels = index.to(torch.uint8).masked_fill_(is_unknown, IGNORE_ID)
    return labels, confidence.masked_fill_(is_unknown, 0.0)
