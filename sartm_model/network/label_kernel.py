"""`labelling.label_map` for a GPU in one launch: from logits straight to bytes.

A program makes some pixels: it interpolates the logits of one class after another, twice over all
of them, and keeps a few numbers a pixel. No class is ever a map of the image's size. Of the second
time each head's maximum and sum of exponentials are known, so that a probability can be formed, and
the largest be kept.

Needs Triton, which comes with torch for CUDA: import this module only where that is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sartm_model.labels import IGNORE_ID

BLOCK = 256
"""Pixels a program makes."""


def label_planes(
    heads: Sequence[Tensor],
    seen: tuple[int, int],
    size: tuple[int, int],
    *,
    confidence: bool = False,
    overlay: tuple[Tensor, Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Labels, and as asked what else `FrameNetwork` gives, all of it uint8.

    A graph can hold this: nothing is read back, and what was compiled for a size serves again.

    Args:
        heads, seen, size: as of `labelling.label_map`; one head or two.
        confidence: also give the confidence.
        overlay: also give the overlay, of the backdrop, counts `[H, W, 3]` or `[H, W, 1]`, uint8 or
            float32; the palette, float32 `[256, 3]`; and the opacity, float32 `[]`.

    Returns:
        by name labels `[H, W]`, confidence `[H, W]`, overlay `[H, W, 3]`.
    """
    first, last = heads[0], heads[-1]
    classes, rows, columns = first.shape
    height, width = size
    planes = {'labels': first.new_empty(height, width, dtype=torch.uint8)}
    if confidence:
        planes['confidence'] = torch.empty_like(planes['labels'])
    backdrop, palette, opacity = overlay or (first, first, first)  # the latter are not read
    if overlay is not None:
        planes['overlay'] = first.new_empty(height, width, 3, dtype=torch.uint8)
    # Triton launches on the current device, whatever the tensors' is.
    with torch.cuda.device_of(first):
        _label_pixels[(triton.cdiv(height * width, BLOCK),)](
            first,
            last,
            *first.stride(),
            *last.stride(),
            rows,
            columns,
            height,
            width,
            seen[0] / (4 * height),
            seen[1] / (4 * width),
            backdrop if overlay is None else backdrop.contiguous(),
            palette,
            opacity,
            planes['labels'],
            planes.get('confidence', planes['labels']),
            planes.get('overlay', planes['labels']),
            CLASSES=classes,
            TWO=len(heads) == 2,
            CONFIDENCE=confidence,
            CHANNELS=0 if overlay is None else backdrop.shape[-1],
            UNKNOWN=IGNORE_ID,
            BLOCK=BLOCK,
        )
    return planes


@triton.jit
def _label_pixels(
    first,
    last,
    first_class,
    first_row,
    first_column,
    last_class,
    last_row,
    last_column,
    rows,
    columns,
    height,
    width,
    row_step,
    column_step,
    backdrop,
    palette,
    opacity,
    labels,
    confidence,
    overlay,
    CLASSES: tl.constexpr,
    TWO: tl.constexpr,
    CONFIDENCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    UNKNOWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pointers, strides, sizes and what is wanted; CHANNELS of the backdrop, 0: no overlay."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    above, below, down = _between(pixel // width, row_step, rows)
    left, right, across = _between(pixel % width, column_step, columns)

    highest1 = tl.full([BLOCK], -3.0e38, tl.float32)  # finite: -inf - -inf is no number
    highest2 = highest1
    sum1 = tl.zeros([BLOCK], tl.float32)
    sum2 = sum1
    for k in range(CLASSES):
        at = first + k * first_class
        logit = _interpolate(
            at, first_row, first_column, above, below, down, left, right, across, inside
        )
        highest1, sum1 = _add(logit, highest1, sum1)
        if TWO:
            at = last + k * last_class
            logit = _interpolate(
                at, last_row, last_column, above, below, down, left, right, across, inside
            )
            highest2, sum2 = _add(logit, highest2, sum2)

    best = tl.zeros([BLOCK], tl.float32)
    label = tl.full([BLOCK], UNKNOWN, tl.int32)
    for k in range(CLASSES):
        at = first + k * first_class
        logit = _interpolate(
            at, first_row, first_column, above, below, down, left, right, across, inside
        )
        total = tl.exp(logit - highest1) / sum1
        if TWO:
            at = last + k * last_class
            logit = _interpolate(
                at, last_row, last_column, above, below, down, left, right, across, inside
            )
            total += tl.exp(logit - highest2) / sum2
        larger = total > best  # never of what is no number; of equal classes the first stays
        best = tl.where(larger, total, best)
        label = tl.where(larger, k, label)

    tl.store(labels + pixel, label.to(tl.uint8), mask=inside)
    if CONFIDENCE:
        share = best * 0.5 if TWO else best
        tl.store(confidence + pixel, _byte(share * 255), mask=inside)
    if CHANNELS > 0:
        weight = tl.where(label != 0, tl.load(opacity), 0.0)
        for c in tl.static_range(3):
            place = pixel * CHANNELS + c % CHANNELS
            under = tl.load(backdrop + place, mask=inside, other=0).to(tl.float32)
            colour = tl.load(palette + label * 3 + c, mask=inside, other=0)
            tl.store(overlay + pixel * 3 + c, _byte(_mix(under, colour, weight)), mask=inside)


@triton.jit
def _between(index, step, count):
    """The two cells between which a pixel's centre lies, and how far it is from the first."""
    at = (index.to(tl.float32) + 0.5) * step - 0.5
    at = tl.minimum(tl.maximum(at, 0.0), count - 1.0)
    low = at.to(tl.int32)  # towards zero: the floor
    return low, tl.minimum(low + 1, count - 1), at - low.to(tl.float32)


@triton.jit
def _interpolate(at, row, column, above, below, down, left, right, across, inside):
    """One class's logit at each pixel, float32: from row to row, then from column to column."""
    upper, lower = at + above * row, at + below * row
    upper_left = tl.load(upper + left * column, mask=inside, other=0).to(tl.float32)
    lower_left = tl.load(lower + left * column, mask=inside, other=0).to(tl.float32)
    upper_right = tl.load(upper + right * column, mask=inside, other=0).to(tl.float32)
    lower_right = tl.load(lower + right * column, mask=inside, other=0).to(tl.float32)
    return _mix(_mix(upper_left, lower_left, down), _mix(upper_right, lower_right, down), across)


@triton.jit
def _mix(one, other, weight):
    """`torch.lerp`, which is exact at both ends."""
    apart = other - one
    return tl.where(weight < 0.5, one + weight * apart, other - apart * (1 - weight))


@triton.jit
def _add(logit, highest, total):
    """The sum of exponentials relative to the highest logit, with one more."""
    higher = tl.where(logit > highest, logit, highest)
    return higher, total * tl.exp(highest - higher) + tl.exp(logit - higher)


@triton.jit
def _byte(value):
    """To the nearest count, of two the even one, as `torch.round` does."""
    # Beyond 2^23 float32 has no halves: the addition rounds.
    return ((value + 12582912.0) - 12582912.0).to(tl.uint8)
