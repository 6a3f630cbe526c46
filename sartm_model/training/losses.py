"""The training losses of the paper (eq. 11-14).

All are computed in float32, also under autocast. Classes without a pixel in the batch are left out.
A loss for which no class remains is a zero that still has a graph, so that it can be added and
differentiated like any other.
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
"""Width and height of a cell of the semantic feature map, in pixels of the input."""

MOMENTUM = 0.9
"""Weight of the old value when a prototype is updated."""

TINY = torch.finfo(torch.float32).tiny
"""The smallest sum that is divided by."""


def ohem_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    probability: float = 0.7,
    min_fraction: float = 1 / 16,
    class_weights: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the hard pixels of a batch (online hard example mining, eq. 11).

    A pixel is hard if its loss exceeds -ln `probability`. If fewer than `min_fraction` of the
    labelled pixels are hard, that many pixels with the largest losses are used instead.

    Args:
        logits: `[B, K, H, W]`.
        labels: int64 `[B, H, W]` of class ids, 255 for 'not labelled'.
        probability: of the true class, below which a pixel is hard.
        min_fraction: of the labelled pixels; at least one pixel is used.
        class_weights: `[K]`, weights of the classes in the mean; None for equal weights.
        excluded: bool `[B, K]`, classes that are left out of the softmax of an image, because its
            data set does not label them: a pixel of another class may show them. Their logits get
            no gradient. None for none.

    Returns:
        The mean loss of the chosen pixels; zero if no pixel is labelled, or all that are chosen
        have the weight 0.
    """
    known = logits.float()
    if excluded is not None:
        known = known.masked_fill(excluded[:, :, None, None], -math.inf)
    losses = F.cross_entropy(known, labels, ignore_index=IGNORE_ID, reduction='none')
    labelled = labels != IGNORE_ID
    losses, classes = losses[labelled], labels[labelled]  # [N] each
    if losses.numel() == 0:
        return logits.sum() * 0.0
    minimum = max(1, int(losses.numel() * min_fraction))
    hard = (losses >= -math.log(probability)).nonzero()[:, 0]
    if hard.numel() < minimum:
        hard = torch.topk(losses, minimum).indices
    if class_weights is None:
        return losses[hard].mean()
    weights = class_weights[classes[hard]]
    # All of them may be of classes of weight 0; their loss is then 0.
    return (weights * losses[hard]).sum() / weights.sum().clamp(min=TINY)


class ClassMeans(NamedTuple):
    """The class features of a batch (eq. 12).

    Attributes:
        means: p_k, `[K, C]`, float32 (float64 for a float64 map); zero for a class without a cell.
        counts: number of cells of each class, int64 `[K]`.
    """

    means: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Which classes have a cell in the batch, bool `[K]`."""
        return self.counts > 0


def class_means(sfm: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
    """The mean of the semantic feature map over the cells of each class in the batch (eq. 12).

    The class of a cell is that of the pixel at its centre: number 8 of the 16 in either direction.
    Cells whose centre lies in the padding, beyond the labels, have no class.

    Args:
        sfm: the fused map `[B, C, h, w]` of the input, padded at the bottom and at the right.
        labels: int64 `[B, H, W]` of class ids, 255 for 'not labelled', H <= 16 h, W <= 16 w.
        num_classes: K.

    Raises:
        SartmError: the shapes do not fit each other.
    """
    height, width = (SFM_STRIDE * side for side in sfm.shape[-2:])
    pad_bottom, pad_right = height - labels.shape[-2], width - labels.shape[-1]
    if pad_bottom < 0 or pad_right < 0 or sfm.shape[0] != labels.shape[0]:
        raise SartmError(
            f'labels {list(labels.shape)} do not fit a semantic feature map {list(sfm.shape)}; '
            f'expected at most [{sfm.shape[0]}, {height}, {width}]'
        )
    centre = SFM_STRIDE // 2
    padded = F.pad(labels, (0, pad_right, 0, pad_bottom), value=IGNORE_ID)
    classes = padded[:, centre::SFM_STRIDE, centre::SFM_STRIDE].flatten()  # [N], N = B h w
    features = _as_float32(sfm).permute(0, 2, 3, 1).flatten(0, 2)  # [N, C]
    labelled = classes != IGNORE_ID
    features, classes = features[labelled], classes[labelled]
    counts = torch.bincount(classes, minlength=num_classes)
    sums = features.new_zeros(num_classes, sfm.shape[1]).index_add(0, classes, features)
    return ClassMeans(sums / counts.clamp(min=1)[:, None], counts)


def language_loss(means: Tensor, present: Tensor, text_embeddings: Tensor) -> Tensor:
    """Language-aided distillation (eq. 13-14): relations of features follow those of class names.

    Over the M classes that are present and have an embedding:

        S_ij = cos(x_i, x_j),    loss = mean_i KL(softmax_j S_text_ij || softmax_j S_vis_ij)

    Args:
        means: class features `[K, C]`.
        present: bool `[K]`, which classes the batch has.
        text_embeddings: of the class names, `[K, D]`; their length does not matter, and zeros are
            for a class without one.

    Returns:
        The loss; zero if M < 2, because one class has no relation to another.
    """
    used = present & text_embeddings.any(dim=1)
    if used.sum() < 2:
        return means.sum() * 0.0
    with torch.autocast(means.device.type, enabled=False):
        visual = _cosine_similarity(_as_float32(means[used])).log_softmax(dim=1)  # [M, M]
        target = _cosine_similarity(_as_float32(text_embeddings[used])).log_softmax(dim=1)
        return F.kl_div(visual, target, reduction='batchmean', log_target=True)


def prototype_loss(prototypes: Prototypes, means: Tensor, present: Tensor) -> Tensor:
    """KL(softmax(prototype) || softmax(class feature)) over the channels, the mean over classes.

    Call it before `Prototypes.update` with the same batch: afterwards the prototypes contain a part
    of the batch (all of it for a class that is new), which would be compared with itself.

    Args:
        prototypes: of K classes and C channels.
        means: class features `[K, C]`.
        present: bool `[K]`, which classes the batch has.

    Returns:
        The loss; zero if no class of the batch has a prototype yet.
    """
    used = present & prototypes.initialized
    if not used.any():
        return means.sum() * 0.0
    current = _as_float32(means[used]).log_softmax(dim=1)  # [M, C]
    target = prototypes.value[used].log_softmax(dim=1)
    return F.kl_div(current, target, reduction='batchmean', log_target=True)


class Prototypes(nn.Module):
    """A running mean of the features of every class.

    Attributes:
        value: buffer `[K, C]`.
        initialized: buffer, bool `[K]`; which classes have been in a batch.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.value: Tensor
        self.initialized: Tensor
        self.register_buffer('value', torch.zeros(num_classes, channels))
        self.register_buffer('initialized', torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, means: Tensor, counts: Tensor) -> None:
        """Set the prototypes of the classes in a batch to 0.9 prototype + 0.1 mean.

        The first mean of a class becomes its prototype. In distributed training every process calls
        this with its own part of the batch, and all get the prototypes of the whole batch.

        Args:
            means: class features `[K, C]` of this process's part of the batch.
            counts: number of cells they were taken from, `[K]`.
        """
        means, weight = means.float(), counts[:, None].float()
        if dist.is_available() and dist.is_initialized():
            total = torch.cat((means * weight, weight), dim=1)  # [K, C + 1]
            dist.all_reduce(total)
            weight = total[:, -1:]
            means = total[:, :-1] / weight.clamp(min=1)
        updated = MOMENTUM * self.value + (1 - MOMENTUM) * means
        updated = torch.where(self.initialized[:, None], updated, means)
        self.value.copy_(torch.where(weight > 0, updated, self.value))
        self.initialized.logical_or_(weight[:, 0] > 0)


def _as_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cosine_similarity(x: Tensor) -> Tensor:
    """Cosine similarity of every row with every row: `[M, C]` -> `[M, M]`."""
    unit = F.normalize(x, dim=1)
    return unit @ unit.T
