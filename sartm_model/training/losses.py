"""The training losses of the paper, each a function of logits and labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.labels import IGNORE_ID


def ohem_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    probability: float = 0.7,
    min_fraction: float = 1 / 16,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the hard pixels of a batch (eq. 11).

    Hard are the pixels whose loss exceeds -ln `probability`; where they are fewer than
    `min_fraction` of the labelled pixels, that many with the largest losses are taken.

    Args:
        logits: `[B, K, H, W]`; the loss is computed in float32.
        labels: int64 `[B, H, W]` of class ids, 255 where there is no label.
        probability: of the pixel's class, under which the pixel counts as hard.
        min_fraction: of the labelled pixels, at least one pixel.
        class_weights: `[K]`, of each class in the mean of the chosen pixels; None for equal.

    Returns:
        The mean loss of the chosen pixels; zero, with a graph, where no pixel is labelled.
    """
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_ID, reduction='none')
    labelled = labels != IGNORE_ID
    losses, classes = losses[labelled], labels[labelled]  # [N] each
    if losses.numel() == 0:
        return logits.sum() * 0.0
    least = max(1, int(losses.numel() * min_fraction))
    hard = (losses > -math.log(probability)).nonzero()[:, 0]
    if hard.numel() < least:
        hard = torch.topk(losses, least).indices
    if class_weights is None:
        return losses[hard].mean()
    weights = class_weights[classes[hard]]
    return (weights * losses[hard]).sum() / weights.sum()
