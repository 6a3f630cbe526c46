"""One confusion matrix, and from it every mean that is published, each under its own name."""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace

# This and `calibration` are not torchmetrics', with which the tests compare them. Its confusion
# matrix has no column for the prediction 255 ('unknown'); its calibration error needs the
# probabilities of all classes, keeps those of every pixel of the data set in memory and gives no
# curve. A frame of 480x640 takes it 40 and 81 ms on one core, 6 and 9 ms here; and with it a replay
# of an exported network would import torch.

MEANS = {
    'miou': 'mIoU, absent classes count 0',
    'miou_present': 'mIoU, classes present',
    'miou_foreground': 'mIoU without background',
    'pixel_accuracy': 'pixel accuracy',
}
"""The means that `ConfusionMatrix.compute` returns, and their names in a report."""


class ConfusionMatrix:
    """Counts pixels by true class and predicted class.

    Pixels whose true id is 255 are not counted. A labelled pixel that is predicted as 255
    (unknown) is a miss of its class.

    Attributes:
        counts: int64 `[K, K + 1]`; rows are the ground truth, columns the prediction, the last
            column is 'unknown'.
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
        """Add one image: predicted ids and true ids, integers `[H, W]`.

        Raises:
            SartmError: the shapes differ, or an id is neither of a class nor 255.
        """
        classes = len(self.counts)
        if labels.shape != truth.shape:
            raise SartmError(
                f'the prediction is {labels.shape} and the ground truth {truth.shape} (rows, '
                'columns); they are compared at the size of the ground truth'
            )
        for name, ids in (('prediction', labels), ('ground truth', truth)):
            wrong = ids[((ids < 0) | (ids >= classes)) & (ids != IGNORE_ID)]
            if len(wrong):
                raise SartmError(
                    f'the {name} has the class id {wrong[0]}, but there are {classes} classes '
                    f'(0 to {classes - 1}, and {IGNORE_ID})'
                )
        counted = truth != IGNORE_ID
        columns = np.where(labels == IGNORE_ID, classes, labels)[counted].astype(np.int64)
        cells = truth[counted].astype(np.int64) * (classes + 1) + columns
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        self.frames += 1

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of `other`, which has the same classes."""
        self.counts += other.counts
        self.frames += other.frames

    def compute(self, label_space: LabelSpace) -> dict[str, Any]:
        """Compute the metrics, in percent and ready for JSON.

        With TP, FP and FN of class k over all pixels, IoU_k = TP / (TP + FP + FN). A class is
        absent if that denominator is 0: it is neither in the ground truth nor in the prediction.

        Returns:
            miou: mean of IoU over all classes, absent ones counting 0.
            miou_present: mean of IoU over the classes that are not absent (null: all are).
            miou_foreground: as `miou`, without the background class of the label space (null: it
                has no background, or no other class).
            pixel_accuracy: labelled pixels that are predicted correctly (null: none are labelled).
            per_class_iou: IoU by class name, null for absent classes.
            frames: number of images.
            confusion: K lists of K counts; rows are the ground truth.
            unknown: of each class the labelled pixels predicted as 255; only if there are any. They
                are misses, so they count in every metric above but are in no column of `confusion`.

        Raises:
            SartmError: the matrix and the label space differ in the number of classes.
        """
        counts, classes = self.counts, len(label_space)
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
        foreground = np.flatnonzero(label_space.is_object())
        total = int(counts.sum())
        result: dict[str, Any] = {
            'miou': float(iou.mean()),
            'miou_present': float(iou[present].mean()) if present.any() else None,
            'miou_foreground': float(iou[foreground].mean())
            if 0 < len(foreground) < classes
            else None,
            'pixel_accuracy': 100.0 * int(hits.sum()) / total if total else None,
            'per_class_iou': {
                name: float(value) if is_present else None
                for name, value, is_present in zip(label_space.classes, iou, present, strict=True)
            },
            'frames': self.frames,
            'confusion': square.tolist(),
        }
        if unknown.any():
            result['unknown'] = unknown.tolist()
        return result
