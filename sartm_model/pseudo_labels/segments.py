"""Segments of an image and the labels that are made of them (SATIR, arXiv 2304.07969).

A segment has no class. SATIR ranks the segments of an image and gives the best one label 1, the
next one label 2, and so on, so that a network can be pretrained on images without labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sartm_model.data.label_space_file import fill_colors
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace

RANKINGS = ('predicted_iou', 'area', 'stability', 'contrast')
PAINT_ORDERS = ('first_on_top', 'last_on_top')
UNCOVERED = ('background', 'ignore')

RING = 5
"""Width in pixels of the surroundings that `contrast` compares a segment with."""

MAX_SEGMENTS = IGNORE_ID - 1


@dataclass(frozen=True)
class Segment:
    """Pixels that belong together.

    Attributes:
        top, left: position of the box around the segment in the image, in pixels.
        mask: bool `[h, w]`, which pixels of the box belong to the segment.
        scores: what the source says of its quality, a part of `RANKINGS`.
    """

    top: int
    left: int
    mask: np.ndarray
    scores: Mapping[str, float]

    @property
    def box(self) -> tuple[slice, slice]:
        """The rows and columns of the image that the box covers."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class LabelRules:
    """How segments become labels.

    Attributes:
        ranking: one of `RANKINGS`; a higher value is better.
        count: number of segments that are labelled, the classes without the background.
        paint: 'first_on_top' gives a pixel of several segments the label of the best one,
            'last_on_top' that of the worst one, as SATIR does.
        uncovered: 'background' gives pixels of no segment the label 0, 'ignore' 255.
        min_area: segments with fewer pixels are left out.

    Raises:
        SartmError: a value is not one of those above.
    """

    ranking: str = 'predicted_iou'
    count: int = 9
    paint: str = 'first_on_top'
    uncovered: str = 'background'
    min_area: int = 0

    def __post_init__(self) -> None:
        for value, known in (
            (self.ranking, RANKINGS),
            (self.paint, PAINT_ORDERS),
            (self.uncovered, UNCOVERED),
        ):
            if value not in known:
                raise SartmError(f'{value!r}; expected one of {", ".join(known)}')
        if not 1 <= self.count <= MAX_SEGMENTS:
            raise SartmError(f'{self.count} segments; expected 1 to {MAX_SEGMENTS}')

    def label_space(self) -> LabelSpace:
        """Return the classes: background, then the segments by rank, in distinct colours."""
        names = ('background', *(f'segment_{rank + 1}' for rank in range(self.count)))
        colors = fill_colors([(0, 0, 0), *[None] * self.count])
        return LabelSpace('segments', names, colors, background_id=0)


PAPER = LabelRules(ranking='predicted_iou', count=9, paint='last_on_top', uncovered='background')
"""SATIR's published procedure: nine masks by falling predicted IoU, the later ones on top."""


def segment_of(mask: np.ndarray, scores: Mapping[str, float]) -> Segment | None:
    """Return the segment of the pixels of a mask, bool `[H, W]`; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return Segment(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1], scores)


def label_image(
    segments: Iterable[Segment], image: np.ndarray, rules: LabelRules, valid: np.ndarray
) -> np.ndarray:
    """Rank the segments of an image and paint the labels of the best ones.

    Pixels that are not valid are no part of a segment, nor of what it is compared with.

    Args:
        segments: in the source's order, which decides between equal scores.
        image: scaled image `[H, W]`, which `contrast` is taken from.
        rules: how segments become labels.
        valid: bool `[H, W]`, which pixels the sensor sees.

    Returns:
        uint8 `[H, W]`: 1 for the best segment, 2 for the next one, and so on; 255 where not valid.
    """
    seen = [
        replace(segment, mask=mask)
        for segment in segments
        if (mask := segment.mask & valid[segment.box]).any()
    ]
    ranked = rank(seen, image, rules, valid)[: rules.count]
    labels = np.full(image.shape, 0 if rules.uncovered == 'background' else IGNORE_ID, np.uint8)
    numbered = list(enumerate(ranked, start=1))
    for number, segment in numbered if rules.paint == 'last_on_top' else reversed(numbered):
        labels[segment.box][segment.mask] = number
    labels[~valid] = IGNORE_ID
    return labels


def rank(
    segments: Iterable[Segment], image: np.ndarray, rules: LabelRules, valid: np.ndarray
) -> Sequence[Segment]:
    """Return the segments that are large enough, the best one first; arguments as `label_image`.

    Raises:
        SartmError: a segment lacks the score that they are to be ranked by.
    """
    large = [segment for segment in segments if segment.mask.sum() >= rules.min_area]
    return sorted(large, key=lambda segment: -_score(segment, image, rules.ranking, valid))


def _score(segment: Segment, image: np.ndarray, ranking: str, valid: np.ndarray) -> float:
    if ranking == 'area':
        return float(segment.mask.sum())
    if ranking == 'contrast':
        return contrast(segment, image, valid)
    if ranking not in segment.scores:
        raise SartmError(f'a segment has no {ranking}; rank them by area or contrast')
    return segment.scores[ranking]


def contrast(segment: Segment, image: np.ndarray, valid: np.ndarray) -> float:
    """Return the difference between the means of a segment and of the ring around it.

    The ring has the width `RING`, ends at the edge of the image and has valid pixels only, `valid`
    being bool `[H, W]`. A segment that is the whole image has no ring and the contrast 0.
    """
    rows, columns = segment.box
    height, width = image.shape
    around = (
        slice(max(rows.start - RING, 0), min(rows.stop + RING, height)),
        slice(max(columns.start - RING, 0), min(columns.stop + RING, width)),
    )
    pixels = np.ascontiguousarray(image[around])
    inside = np.zeros(pixels.shape, np.uint8)
    top, left = rows.start - around[0].start, columns.start - around[1].start
    inside[top : top + segment.mask.shape[0], left : left + segment.mask.shape[1]] = segment.mask
    square = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    ring = (cv2.dilate(inside, square) - inside) * valid[around]
    if not ring.any():
        return 0.0
    return abs(cv2.mean(pixels, inside)[0] - cv2.mean(pixels, ring)[0])
