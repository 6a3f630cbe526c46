"""How well the outlines of things are met: boundary F1 of each class."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from sartm_model.labels import IGNORE_ID, LabelSpace

TOLERANCE = 0.0075
"""How far outlines may lie apart and still meet, in parts of the image's diagonal: 6 pixels of
480x640. It is the tolerance of Csurka et al., 'What is a good evaluation measure for semantic
segmentation?', BMVC 2013."""


class BoundaryCounts:
    """Outline pixels by class, and how many of them have an outline of the other image near.

    A pixel is on the outline of its class where one of its four neighbours is of another class.
    Pixels whose truth is 255 are left out on both sides: they are on no outline and make none.
    The counts run over all images, unlike in the paper, which takes the mean over images: an image
    with a few pixels of a class weighs no more than they do.

    Attributes:
        predicted: int64 `[K]`, outline pixels of the predictions.
        correct: int64 `[K]`, those of them that lie near an outline of the truth.
        true: int64 `[K]`, outline pixels of the truth.
        found: int64 `[K]`, those of them that lie near an outline of the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.predicted, self.correct, self.true, self.found = np.zeros((4, num_classes), np.int64)

    def update(self, labels: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: predicted ids and true ids, uint8 `[H, W]`."""
        counted = truth != IGNORE_ID
        near = _disc(TOLERANCE * float(np.hypot(*truth.shape)))
        outlines, true_outlines = outline(labels, counted), outline(truth, counted)
        for label in np.union1d(labels[outlines], truth[true_outlines]).tolist():
            if label == IGNORE_ID:  # an unknown prediction is of no class
                continue
            mine, theirs = outlines & (labels == label), true_outlines & (truth == label)
            self.predicted[label] += mine.sum()
            self.true[label] += theirs.sum()
            self.correct[label] += (mine & _spread(theirs, near)).sum()
            self.found[label] += (theirs & _spread(mine, near)).sum()

    def add(self, other: BoundaryCounts) -> None:
        """Count all that `other`, of as many classes, has counted."""
        self.predicted += other.predicted
        self.correct += other.correct
        self.true += other.true
        self.found += other.found

    def figures(self, label_space: LabelSpace) -> dict[str, Any]:
        """In percent and ready for JSON.

        F1 = 2 P R / (P + R), P the part of the predicted outlines that is correct, R the part of
        the true ones that is found; 0 where there is only one of the two.

        Returns:
            boundary_f1: mean over the classes that have an outline in either, without class 0
                (null: none has).
            per_class_boundary_f1: by class name, null for a class without.
        """
        by_class = [_f1(*counts) for counts in zip(*self._lists(), strict=True)]
        present = [value for value in by_class[1:] if value is not None]
        return {
            'boundary_f1': float(np.mean(present)) if present else None,
            'per_class_boundary_f1': dict(zip(label_space.classes, by_class, strict=True)),
        }

    def _lists(self) -> list[list[int]]:
        return [n.tolist() for n in (self.predicted, self.correct, self.true, self.found)]


def outline(ids: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The outline pixels of all classes of `ids`, bool `[H, W]`, within the pixels `counted`."""
    found = np.zeros(ids.shape, bool)
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (ids[one] != ids[other]) & counted[one] & counted[other]
        found[one] |= differ
        found[other] |= differ
    return found


def _disc(radius: float) -> np.ndarray:
    """The pixels within `radius` of the one in the middle, uint8 `[n, n]`."""
    reach = int(radius)
    steps = np.arange(-reach, reach + 1)
    return (np.hypot(steps[:, None], steps) <= radius).astype(np.uint8)


def _spread(pixels: np.ndarray, disc: np.ndarray) -> np.ndarray:
    """Every place that has one of `pixels` in the disc around it, bool `[H, W]`."""
    return cv2.dilate(pixels.astype(np.uint8), disc).astype(bool)


def _f1(predicted: int, correct: int, true: int, found: int) -> float | None:
    if not predicted and not true:
        return None
    if not correct or not found:
        return 0.0
    precision, recall = correct / predicted, found / true
    return 100.0 * 2 * precision * recall / (precision + recall)
