"""The training losses of the paper (eq. 11-14), each a function of maps, labels and statistics.

All are computed in float32, under autocast too. A class without a pixel in the batch takes no part
in any of them, and where none takes part a loss is zero, with a graph.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID

SFM_STRIDE = 16
"""Pixels of the input a side of one cell of the semantic feature map."""

MOMENTUM = 0.9
"""What a prototype keeps of itself at an update."""


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


class ClassMeans(NamedTuple):
    """The class features of a batch (eq. 12).

    Attributes:
        means: p_k, `[K, C]`, float32 (float64 of a float64 map); zero for a class without a cell.
        counts: cells a class, int64 `[K]`.
    """

    means: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Which classes the batch has, bool `[K]`."""
        return self.counts > 0


def class_means(sfm: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
    """The mean of the semantic feature map over each class's cells, over the batch (eq. 12).

    A cell has the class of the pixel nearest to its centre: of the 16 x 16 pixels under it, number
    8 in either direction. A map of an input that was padded reaches beyond the labels; its cells
    whose pixel lies out there have no class.

    Args:
        sfm: the fused map `[B, C, h, w]` of the input padded at the bottom and at the right.
        labels: int64 `[B, H, W]` of class ids, 255 where there is no label, H <= 16 h, W <= 16 w.
        num_classes: K.

    Raises:
        SartmError: the labels are not of the map's input.
    """
    height, width = (SFM_STRIDE * side for side in sfm.shape[-2:])
    below, beside = height - labels.shape[-2], width - labels.shape[-1]
    if below < 0 or beside < 0 or sfm.shape[0] != labels.shape[0]:
        raise SartmError(
            f'labels {list(labels.shape)} do not fit a semantic feature map {list(sfm.shape)}; '
            f'expected at most [{sfm.shape[0]}, {height}, {width}]'
        )
    centre = SFM_STRIDE // 2
    padded = F.pad(labels, (0, beside, 0, below), value=IGNORE_ID)
    classes = padded[:, centre::SFM_STRIDE, centre::SFM_STRIDE].flatten()  # [N], N = B h w
    features = _wide(sfm).permute(0, 2, 3, 1).flatten(0, 2)  # [N, C]
    labelled = classes != IGNORE_ID
    features, classes = features[labelled], classes[labelled]
    counts = torch.bincount(classes, minlength=num_classes)
    sums = features.new_zeros(num_classes, sfm.shape[1]).index_add(0, classes, features)
    return ClassMeans(sums / counts.clamp(min=1)[:, None], counts)


def language_loss(means: Tensor, present: Tensor, text: Tensor, known: Tensor) -> Tensor:
    """Language-aided distillation: the features relate to each other as the class names do.

    Eq. 13-14, over the classes that are both present and known:

        S_ij = cos(x_i, x_j),    loss = mean_i KL(softmax_j S_text_ij || softmax_j S_vis_ij)

    Args:
        means: class features `[K, C]`.
        present: bool `[K]`, which of them the batch has.
        text: embeddings of the class names `[K, D]`, of any length.
        known: bool `[K]`, which classes have an embedding.

    Returns:
        The loss; zero, with a graph, for fewer than two classes, which have no relation.
    """
    taking_part = present & known
    if taking_part.sum() < 2:
        return means.sum() * 0.0
    with torch.autocast(means.device.type, enabled=False):
        visual = _cosines(_wide(means[taking_part])).log_softmax(dim=1)  # [M, M]
        target = _cosines(_wide(text[taking_part])).log_softmax(dim=1)
        return F.kl_div(visual, target, reduction='batchmean', log_target=True)


def prototype_loss(prototypes: Prototypes, means: Tensor, present: Tensor) -> Tensor:
    """KL(softmax(prototype) || softmax(class feature)) over the channels, the mean over classes.

    Taken against the prototypes as earlier batches left them: call it before `update`. Else a part
    of the batch would be compared with itself, all of it where a class is seen for the first time.

    Args:
        prototypes: of K classes and C channels.
        means: class features `[K, C]`.
        present: bool `[K]`, which of them the batch has.

    Returns:
        The loss; zero, with a graph, where no class present has been seen before.
    """
    taking_part = present & prototypes.seen
    if not taking_part.any():
        return means.sum() * 0.0
    now = _wide(means[taking_part]).log_softmax(dim=1)  # [M, C]
    before = prototypes.value[taking_part].log_softmax(dim=1)
    return F.kl_div(now, before, reduction='batchmean', log_target=True)


class Prototypes(nn.Module):
    """A running mean of every class's features, kept with the weights it belongs to.

    The buffers are saved and restored by the state dict: `value` `[K, C]` and `seen`, bool `[K]`.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.value: Tensor
        self.seen: Tensor
        self.register_buffer('value', torch.zeros(num_classes, channels))
        self.register_buffer('seen', torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, means: Tensor, counts: Tensor) -> None:
        """Follow a batch: 0.9 prototype + 0.1 mean; a class's first mean is taken as it is.

        Where training is distributed every process calls this with its own part of the batch, and
        all of them get the prototypes of the whole. Classes that no process has stay as they are.

        Args:
            means: class features `[K, C]` of this process's batch.
            counts: cells behind each of them, `[K]`.
        """
        means, weight = means.float(), counts[:, None].float()
        if dist.is_available() and dist.is_initialized():
            total = torch.cat((means * weight, weight), dim=1)  # [K, C + 1]
            dist.all_reduce(total)
            weight = total[:, -1:]
            means = total[:, :-1] / weight.clamp(min=1)
        followed = MOMENTUM * self.value + (1 - MOMENTUM) * means
        followed = torch.where(self.seen[:, None], followed, means)
        self.value.copy_(torch.where(weight > 0, followed, self.value))
        self.seen.logical_or_(weight[:, 0] > 0)


def _wide(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cosines(x: Tensor) -> Tensor:
    """Cosine similarity of every row with every row: `[M, C]` -> `[M, M]`."""
    unit = F.normalize(x, dim=1)
    return unit @ unit.T
