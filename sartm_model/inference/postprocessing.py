"""From both heads' logits at a quarter of the input's size to labels, never all classes at once.

Equal, up to rounding, to bilinear interpolation of the logits to the image's size, softmax, mean
over the heads and the largest class. On a CPU that takes as long as a small network does: 2 K maps
of the image's size go through memory several times. Here a strip of rows at a time goes through it,
small enough for the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.labels import IGNORE_ID
from sartm_model.utils.parallel import Runner

STRIP_VALUES = 1 << 18
"""Logits in one strip on a CPU: 1 MiB of float32, about what a core's cache takes."""


def label_map(
    heads: Sequence[Tensor],
    input_size: tuple[int, int],
    size: tuple[int, int],
    runner: Runner | None = None,
) -> tuple[Tensor, Tensor]:
    """The most probable class of each pixel, and its probability.

    Args:
        heads: logits `[K, h, w]` of each head, h and w a quarter of the padded input's.
        input_size: height and width of the input without its padding.
        size: height and width of the result.
        runner: has the upper and the lower half made at once.

    Returns:
        labels uint8 `[H, W]`, 255 where a head's logits are not numbers; probability float32
        `[H, W]`, the mean over the heads, 0 there. Of equal classes the first is taken.
    """
    logits = torch.stack(tuple(heads)).float()  # [M, K, h, w]
    height, width = size
    if logits.device.type != 'cpu':
        return _label_all(logits, input_size, size)
    rows = _resize_rows(logits, 4 * height / input_size[0], height)  # [M, K, H, w]
    strip = max(1, STRIP_VALUES // (logits.shape[0] * logits.shape[1] * width))
    strips = rows.split(strip, dim=2)

    def work(some: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return [_label_strip(one, 4 * width / input_size[1], width) for one in some]

    if runner is None or len(strips) == 1:
        parts = work(strips)
    else:
        middle = len(strips) // 2
        upper, lower = runner(lambda: work(strips[:middle]), lambda: work(strips[middle:]))
        parts = upper + lower
    labels, probability = zip(*parts, strict=True)
    return torch.cat(labels), torch.cat(probability)


def _label_all(
    logits: Tensor, input_size: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """All of it at once, for a GPU: along one axis torch interpolates there by few threads."""
    # Rounding must not take a row off.
    factors = [4 * new / old * (1 + 1e-9) for new, old in zip(size, input_size, strict=True)]
    full = F.interpolate(logits, scale_factor=factors, mode='bilinear')
    return largest(full[..., : size[0], : size[1]])


def _resize_rows(logits: Tensor, factor: float, height: int) -> Tensor:
    """Bilinear interpolation's part from row to row, pixel centres at i + 1/2."""
    last = logits.shape[2] - 1
    at = (torch.arange(height, device=logits.device) + 0.5) / factor - 0.5
    at = at.clamp(0, last)
    above = at.floor().long()
    below = (above + 1).clamp_max(last)
    return torch.lerp(logits[:, :, above], logits[:, :, below], (at - above)[:, None])


def _label_strip(rows: Tensor, factor: float, width: int) -> tuple[Tensor, Tensor]:
    """`[M, K, n, w]` -> labels and probability `[n, W]`."""
    heads, classes, count, _ = rows.shape
    # Rounding must not take a column off.
    full = F.interpolate(rows.flatten(0, 2)[None], scale_factor=factor * (1 + 1e-9), mode='linear')[
        ..., :width
    ]
    return largest(full.view(heads, classes, count, width))


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`[M, K, n, W]` -> labels and probability `[n, W]`."""
    heads, classes = logits.shape[:2]
    by_head = logits.softmax(dim=1)
    total = by_head[0]
    for other in by_head[1:]:
        total = total + other
    best = total.amax(dim=0)
    code = countdown(total, best, dim=0)  # K of class 0, ..., 0 of none
    known = code > 0
    labels = torch.where(known, classes - code, IGNORE_ID)
    return labels, torch.where(known, best / heads, 0.0)


def countdown(values: Tensor, best: Tensor, dim: int) -> Tensor:
    """K less the index of the first of K values that is `best`, their largest; 0: none. uint8.

    By comparisons, which a CPU does many at a time. Its maximum with indices goes value by value
    and takes as long as all the rest.
    """
    classes = values.shape[dim]
    count = torch.arange(classes, 0, -1, dtype=torch.uint8, device=values.device)
    count = count.view(-1, *[1] * (values.dim() - dim - 1))
    return ((values == best.unsqueeze(dim)) * count).amax(dim)
