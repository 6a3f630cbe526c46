"""Labels without confidence on a CPU: the network's logits are upsampled only between classes.

Where the four logits around a pixel have the same largest class in every head, a bilinear mean of
them has it too, and so have the softmax and the mean over the heads. Only the other pixels, a few
percent of a usual image, are computed (docs/performance.md has the gain). On a GPU the host would
have to wait for the number of these pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sartm_model.inference.postprocessing import STRIP_VALUES, labels_from_logits
from sartm_model.labels import IGNORE_ID
from sartm_model.models.logits import class_probabilities, first_maximum, labels_and_confidence
from sartm_model.utils.parallel import Runner

MAX_BOUNDARY_SHARE = 0.4
"""Share of the boundary pixels above which `labels_from_logits` is faster."""


def labels_from_boundaries(
    heads: Sequence[Tensor],
    extent: tuple[float, float],
    size: tuple[int, int],
    runner: Runner | None = None,
) -> Tensor:
    """Return the labels of `labels_from_logits`, uint8 `[H, W]`.

    Args:
        heads, extent, size: as there, on a CPU.
        runner: computes two halves of the boundary pixels in parallel.
    """
    logits = torch.stack(tuple(heads)).float()  # [M, K, h, w]
    rows, columns = (
        _neighbours(new / old, new, length)
        for new, old, length in zip(size, extent, logits.shape[2:], strict=True)
    )
    labels = _labels_inside(logits).index_select(1, columns.before).index_select(0, rows.before)
    flat = labels.view(-1)
    boundary = (flat == IGNORE_ID).nonzero()[:, 0]
    if len(boundary) > MAX_BOUNDARY_SHARE * len(flat):
        return labels_from_logits(heads, extent, size, runner)[0]
    table = logits.flatten(0, 1).flatten(1).T.contiguous()  # [h * w, M * K]

    def label(pixels: Tensor) -> None:
        for part in pixels.split(max(1, STRIP_VALUES // table.shape[1])):
            row, column = _select(rows, part // size[1]), _select(columns, part % size[1])
            full = _interpolate(table, logits.shape[3], row, column)  # [M * K, n]
            full = full.view(*logits.shape[:2], 1, -1)
            flat[part] = labels_and_confidence(class_probabilities(full))[0][0]

    if runner is None:
        label(boundary)
    else:
        first, second = boundary.tensor_split(2)
        runner(lambda: label(first), lambda: label(second))
    return labels


class _Neighbours(NamedTuple):
    """The two logits along one axis that each of n pixels lies between.

    Attributes:
        before, after: their indices, int64 `[n]`.
        weight: of the one after, float32 `[n]`.
    """

    before: Tensor
    after: Tensor
    weight: Tensor


def _neighbours(factor: float, count: int, length: int) -> _Neighbours:
    """Return those of `count` pixels, `factor` pixels a logit, pixel centres at i + 1/2."""
    position = ((torch.arange(count) + 0.5) / factor - 0.5).clamp(0, length - 1)
    before = position.floor().long()
    return _Neighbours(before, (before + 1).clamp_max(length - 1), position - before)


def _select(neighbours: _Neighbours, pixels: Tensor) -> _Neighbours:
    return _Neighbours(*(values.index_select(0, pixels) for values in neighbours))


def _labels_inside(logits: Tensor) -> Tensor:
    """Return the class between each logit and the next along both axes, or 255 at a boundary.

    Args:
        logits: `[M, K, h, w]`.

    Returns:
        uint8 `[h, w]`.
    """
    largest, _ = first_maximum(logits, dim=-3)  # [M, h, w]
    agreed = (largest == largest[0]).all(dim=0) & logits.sum(dim=(0, 1)).isfinite()
    here = torch.where(agreed, largest[0], IGNORE_ID)
    right = torch.cat((here[:, 1:], here[:, -1:]), dim=1)
    row = torch.where(here == right, here, IGNORE_ID)
    below = torch.cat((row[1:], row[-1:]))
    return torch.where(row == below, row, IGNORE_ID)


def _interpolate(table: Tensor, width: int, rows: _Neighbours, columns: _Neighbours) -> Tensor:
    """Return the logits `[M * K, n]` of n pixels from those of all places, `[h * w, M * K]`."""

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return table.index_select(0, row * width + column)

    above, below = (
        torch.lerp(corner(row, columns.before), corner(row, columns.after), columns.weight[:, None])
        for row in (rows.before, rows.after)
    )
    return torch.lerp(above, below, rows.weight[:, None]).T.contiguous()
