"""Labels alone, in full only where classes meet: most pixels need no arithmetic of their own.

Between four neighbouring places of the logits at which all heads have the same largest class, a
bilinear mean has it too, and so do softmax and the mean over the heads. What is left are the seams
between classes, a few percent of a usual image. For a CPU: how many pixels that is a GPU would have
to tell the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sartm_model.inference.postprocessing import STRIP_VALUES, countdown, label_map, largest
from sartm_model.labels import IGNORE_ID
from sartm_model.utils.parallel import Runner

FEW = 0.4
"""Share of the pixels up to which to gather each one's neighbours is cheaper than all in strips."""


def labels_alone(
    heads: Sequence[Tensor],
    input_size: tuple[int, int],
    size: tuple[int, int],
    runner: Runner | None = None,
) -> Tensor:
    """The labels of `label_map`, uint8 `[H, W]`; arguments as there, on a CPU."""
    logits = torch.stack(tuple(heads)).float()  # [M, K, h, w]
    rows, columns = (
        _places(4 * new / old, new, length)
        for new, old, length in zip(size, input_size, logits.shape[2:], strict=True)
    )
    labels = _known(logits).index_select(1, columns.before).index_select(0, rows.before)
    flat = labels.view(-1)
    seams = (flat == IGNORE_ID).nonzero()[:, 0]
    if len(seams) > FEW * len(flat):
        return label_map(heads, input_size, size, runner)[0]
    table = logits.flatten(0, 1).flatten(1).T.contiguous()  # [h w, M K]

    def work(pixels: Tensor) -> None:
        for some in pixels.split(max(1, STRIP_VALUES // table.shape[1])):
            row, column = _of(rows, some // size[1]), _of(columns, some % size[1])
            at = _interpolated(table, logits.shape[3], row, column)
            flat[some] = largest(at.view(*logits.shape[:2], 1, -1))[0][0]

    if runner is None:
        work(seams)
    else:
        upper, lower = seams.tensor_split(2)
        runner(lambda: work(upper), lambda: work(lower))
    return labels


class _Places(NamedTuple):
    """Where bilinear interpolation reads along one side for each of n pixels.

    Attributes:
        before, after: places on either side of the pixel, int64 `[n]`.
        part: weight of the one after, float32 `[n]`.
    """

    before: Tensor
    after: Tensor
    part: Tensor


def _places(factor: float, count: int, length: int) -> _Places:
    """Of `count` pixels, `factor` of them to a place; pixel centres at i + 1/2."""
    at = ((torch.arange(count) + 0.5) / factor - 0.5).clamp(0, length - 1)
    before = at.floor().long()
    return _Places(before, (before + 1).clamp_max(length - 1), at - before)


def _of(places: _Places, pixels: Tensor) -> _Places:
    return _Places(*(values.index_select(0, pixels) for values in places))


def _known(logits: Tensor) -> Tensor:
    """`[M, K, h, w]` -> uint8 `[h, w]`: the class between each place and the next ones, or 255."""
    best = countdown(logits, logits.amax(dim=1), dim=1)
    known = (best == best[0]).all(dim=0) & logits.sum(dim=(0, 1)).isfinite()
    here = torch.where(known, logits.shape[1] - best[0], IGNORE_ID)
    beside = torch.cat((here[:, 1:], here[:, -1:]), dim=1)
    row = torch.where(here == beside, here, IGNORE_ID)
    below = torch.cat((row[1:], row[-1:]))
    return torch.where(row == below, row, IGNORE_ID)


def _interpolated(table: Tensor, width: int, rows: _Places, columns: _Places) -> Tensor:
    """Logits `[M K, n]` of n pixels; `table` holds those of all places, `[h * width, M K]`."""

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return table.index_select(0, row * width + column)

    above, below = (
        torch.lerp(corner(row, columns.before), corner(row, columns.after), columns.part[:, None])
        for row in (rows.before, rows.after)
    )
    return torch.lerp(above, below, rows.part[:, None]).T.contiguous()
