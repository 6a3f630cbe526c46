"""One confusion matrix, and from it every mean that is published, each under its own name."""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace

MEANS = {
    'miou': 'mIoU, absent classes count 0',
    'miou_present': 'mIoU, classes present',
    'miou_foreground': 'mIoU without background',
    'pixel_accuracy': 'pixel accuracy',
}
"""What the means that `metrics` gives are called in a report."""


class ConfusionMatrix:
    """Counts of pixels by true class and predicted class.

    Pixels whose truth is 255 are not counted. A labelled pixel that is predicted 255 (unknown) is
    a miss of its class.

    Attributes:
        counts: int64 `[K, K + 1]`; rows are the truth, columns the prediction, the last column
            'unknown'.
        frames: number of images counted.

    >>> confusion = ConfusionMatrix(2)
    >>> confusion.update(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 255]], np.uint8))
    >>> confusion.counts.tolist()
    [[1, 1, 0], [0, 0, 0]]
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)
        self.frames = 0

    def update(self, labels: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: predicted ids and true ids, integers `[H, W]`.

        Raises:
            SartmError: the shapes differ, or an id is neither of a class nor 255.
        """
        classes = len(self.counts)
        if labels.shape != truth.shape:
            raise SartmError(
                f'the prediction is {labels.shape} and the truth {truth.shape} (rows, columns); '
                'they are compared at the size of the truth'
            )
        for what, ids in (('prediction', labels), ('truth', truth)):
            wrong = ids[((ids < 0) | (ids >= classes)) & (ids != IGNORE_ID)]
            if len(wrong):
                raise SartmError(
                    f'the {what} has the class id {wrong[0]}, but there are {classes} classes '
                    f'(0 to {classes - 1}, and {IGNORE_ID})'
                )
        counted = truth != IGNORE_ID
        column = np.where(labels == IGNORE_ID, classes, labels)[counted].astype(np.int64)
        pairs = truth[counted].astype(np.int64) * (classes + 1) + column
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)
        self.frames += 1

    def add(self, other: ConfusionMatrix) -> None:
        """Count all that `other`, of as many classes, has counted."""
        self.counts += other.counts
        self.frames += other.frames


def metrics(confusion: ConfusionMatrix, label_space: LabelSpace) -> dict[str, Any]:
    """The figures of a confusion matrix, in percent and ready for JSON.

    With TP, FP and FN of class k over all pixels, IoU_k = TP / (TP + FP + FN). A class is absent
    where that denominator is 0: it is in neither the truth nor the prediction.

    Returns:
        miou: mean of IoU over all classes, absent ones counting 0.
        miou_present: mean of IoU over the classes that are not absent (null: all are).
        miou_foreground: as `miou`, without class 0 (null: there is no other).
        pixel_accuracy: labelled pixels predicted right (null: none are labelled).
        per_class_iou: IoU by class name, null for absent ones.
        frames: number of images.
        confusion: K lists of K counts, rows are the truth.
        unknown: of each class the labelled pixels predicted 255; only where there are any. They
            are misses, so they are in every figure above but in no column of `confusion`.

    Raises:
        SartmError: the matrix and the label space differ in the number of classes.
    """
    counts, classes = confusion.counts, len(label_space)
    if len(counts) != classes:
        raise SartmError(
            f'{len(counts)} classes were counted, but the label space {label_space.name!r} has '
            f'{classes}'
        )
    square, unknown = counts[:, :classes], counts[:, classes]
    hits = np.diagonal(square)
    union = counts.sum(axis=1) + square.sum(axis=0) - hits
    present = union > 0
    iou = 100.0 * hits / np.maximum(union, 1)
    total = int(counts.sum())
    figures: dict[str, Any] = {
        'miou': float(iou.mean()),
        'miou_present': float(iou[present].mean()) if present.any() else None,
        'miou_foreground': float(iou[1:].mean()) if classes > 1 else None,
        'pixel_accuracy': 100.0 * int(hits.sum()) / total if total else None,
        'per_class_iou': {
            name: float(value) if there else None
            for name, value, there in zip(label_space.classes, iou, present, strict=True)
        },
        'frames': confusion.frames,
        'confusion': square.tolist(),
    }
    if unknown.any():
        figures['unknown'] = unknown.tolist()
    return figures
