"""Boundary F1 of each class: how well the outlines of objects are predicted."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from sartm_model.labels import IGNORE_ID, LabelSpace

TOLERANCE = 0.0075
"""Distance between two outlines that still match, as a fraction of the image's diagonal: 6 pixels
of 480x640. It is the tolerance of Csurka et al., 'What is a good evaluation measure for semantic
segmentation?', BMVC 2013."""


class BoundaryCounts:
    """Counts outline pixels by class, and how many of them are near an outline of the other image.

    A pixel is on the outline of its class if one of its four neighbours is of another class.
    Pixels whose true id is 255 are left out on both sides: they are on no outline and cause none.
    The counts are summed over all images, while the paper averages F1 over images: so an image
    with few pixels of a class weighs no more than they do.

    Attributes:
        predicted: int64 `[K]`, outline pixels of the predictions.
        correct: int64 `[K]`, those of them that are near an outline of the ground truth.
        true: int64 `[K]`, outline pixels of the ground truth.
        found: int64 `[K]`, those of them that are near an outline of the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.predicted, self.correct, self.true, self.found = np.zeros((4, num_classes), np.int64)

    def update(self, labels: np.ndarray, truth: np.ndarray) -> None:
        """Add one image: predicted ids and true ids, uint8 `[H, W]`."""
        counted = truth != IGNORE_ID
        disc = _disc(TOLERANCE * float(np.hypot(*truth.shape)))
        all_predicted, all_true = outline(labels, counted), outline(truth, counted)
        for label in np.union1d(labels[all_predicted], truth[all_true]).tolist():
            if label == IGNORE_ID:  # an unknown prediction is of no class
                continue
            predicted, true = all_predicted & (labels == label), all_true & (truth == label)
            self.predicted[label] += predicted.sum()
            self.true[label] += true.sum()
            self.correct[label] += (predicted & _dilate(true, disc)).sum()
            self.found[label] += (true & _dilate(predicted, disc)).sum()

    def merge(self, other: BoundaryCounts) -> None:
        """Add the counts of `other`, which has the same classes."""
        self.predicted += other.predicted
        self.correct += other.correct
        self.true += other.true
        self.found += other.found

    def compute(self, label_space: LabelSpace) -> dict[str, Any]:
        """Return boundary F1 in percent, ready for JSON.

        F1 = 2 P R / (P + R), where P is the fraction of the predicted outlines that is correct
        and R the fraction of the true outlines that is found; 0 if there are only predicted or
        only true ones.

        Returns:
            boundary_f1: mean over the classes that have an outline in either, without the
                background class if the label space has one (null: none has).
            per_class_boundary_f1: by class name, null for a class without an outline.
        """
        counts = (n.tolist() for n in (self.predicted, self.correct, self.true, self.found))
        by_class = [_f1(*of_class) for of_class in zip(*counts, strict=True)]
        is_object = label_space.is_object()
        present = [
            value
            for value, counts_here in zip(by_class, is_object, strict=True)
            if counts_here and value is not None
        ]
        return {
            'boundary_f1': float(np.mean(present)) if present else None,
            'per_class_boundary_f1': dict(zip(label_space.classes, by_class, strict=True)),
        }


def outline(ids: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the outline pixels of all classes of `ids`, bool `[H, W]`.

    Only pixels within the mask `counted`, bool `[H, W]`, are compared.
    """
    found = np.zeros(ids.shape, bool)
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (ids[one] != ids[other]) & counted[one] & counted[other]
        found[one] |= differ
        found[other] |= differ
    return found


def _disc(radius: float) -> np.ndarray:
    """Return the pixels within `radius` of the one in the middle, uint8 `[n, n]`."""
    reach = int(radius)
    steps = np.arange(-reach, reach + 1)
    return (np.hypot(steps[:, None], steps) <= radius).astype(np.uint8)


def _dilate(pixels: np.ndarray, disc: np.ndarray) -> np.ndarray:
    """Return every place that has one of `pixels` in the disc around it, bool `[H, W]`."""
    return cv2.dilate(pixels.astype(np.uint8), disc).astype(bool)


def _f1(predicted: int, correct: int, true: int, found: int) -> float | None:
    if not predicted and not true:
        return None
    if not correct or not found:
        return 0.0
    precision, recall = correct / predicted, found / true
    return 100.0 * 2 * precision * recall / (precision + recall)
