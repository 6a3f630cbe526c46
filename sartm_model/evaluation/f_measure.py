"""The weighted F-measure of each class: how good a map of the foreground is.

R. Margolin, L. Zelnik-Manor and A. Tal, 'How to Evaluate Foreground Maps?', CVPR 2014.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace

KERNEL_SIZE, KERNEL_SIGMA = 7, 5.0
DISTANCE_SCALE = np.log(0.5) / 5  # a false positive at 5 pixels from the foreground weighs 1.5
EPSILON = np.finfo(np.float64).eps


def weighted_f_measure(
    prediction: np.ndarray, truth: np.ndarray, counted: np.ndarray | None = None
) -> float:
    """Compute the weighted F-measure of one map, 0 to 1, with beta^2 = 1.

    With E = |prediction - truth|, each pixel of the background takes the E of its nearest pixel of
    the foreground, and the result is smoothed by a Gaussian. Inside the foreground the smaller of E
    and of that is the error. Outside E is, times 2 - exp(ln(0.5) / 5 d) for a distance d to the
    foreground. Precision and recall are those of the sums of these errors.

    Args:
        prediction: probabilities of the foreground `[H, W]`, or a mask.
        truth: bool `[H, W]`, the foreground. Without any the measure is 0.
        counted: bool `[H, W]`; a pixel that is false counts neither as found nor as an error.

    Raises:
        SartmError: SciPy is not installed.
    """
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError:
        raise SartmError('the weighted F-measure needs SciPy; pip install scipy') from None
    if counted is not None:
        truth, prediction = truth & counted, np.where(counted, prediction, 0)
    if not truth.any():
        return 0.0
    error = np.abs(prediction - truth.astype(np.float64))
    distance, (rows, columns) = distance_transform_edt(~truth, return_indices=True)
    kernel = cv2.getGaussianKernel(KERNEL_SIZE, KERNEL_SIGMA)
    smoothed = cv2.sepFilter2D(
        error[rows, columns], -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT
    )
    missed = float(np.minimum(error, smoothed)[truth].sum())
    false = error[~truth] * (2 - np.exp(DISTANCE_SCALE * distance[~truth]))
    size = int(truth.sum())
    found = size - missed
    precision, recall = found / (found + float(false.sum()) + EPSILON), found / size
    return 2 * precision * recall / (precision + recall + EPSILON)


class FMeasure:
    """Averages the weighted F-measure of the predicted labels over images and their classes.

    An image counts once for each class in its ground truth, and its prediction is the mask of the
    pixels that are predicted as this class. Pixels whose true id is 255 are not counted.

    Attributes:
        sums: float64 `[K]`, sum of the measures of each class.
        images: int64 `[K]`, number of images with the class.
    """

    def __init__(self, num_classes: int) -> None:
        self.sums = np.zeros(num_classes)
        self.images = np.zeros(num_classes, np.int64)

    def update(self, labels: np.ndarray, truth: np.ndarray) -> None:
        """Add one image: predicted ids and true ids, uint8 `[H, W]`."""
        counted = truth != IGNORE_ID
        for label in np.unique(truth[counted]).tolist():
            self.sums[label] += weighted_f_measure(labels == label, truth == label, counted)
            self.images[label] += 1

    def merge(self, other: FMeasure) -> None:
        """Add the images of `other`, which has the same classes."""
        self.sums += other.sums
        self.images += other.images

    def compute(self, label_space: LabelSpace) -> dict[str, Any]:
        """Return the weighted F-measure in percent, ready for JSON.

        Returns:
            f_measure: mean over all images and the classes in each (null: nothing is labelled).
            f_measure_foreground: the same without the background class of the label space (null:
                it has none, or nothing else is labelled).
            per_class_f_measure: mean over the images with the class, by its name, null for a class
                that is in none.
        """
        foreground = label_space.is_object()
        return {
            'f_measure': _mean(self.sums, self.images),
            'f_measure_foreground': None
            if foreground.all()
            else _mean(self.sums[foreground], self.images[foreground]),
            'per_class_f_measure': {
                name: _mean(self.sums[id_], self.images[id_])
                for id_, name in enumerate(label_space.classes)
            },
        }


def _mean(sums: Any, images: Any) -> float | None:
    count = int(np.sum(images))
    return 100.0 * float(np.sum(sums)) / count if count else None
