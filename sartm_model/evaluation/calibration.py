"""Whether the confidence can be believed: reliability curve and expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.labels import IGNORE_ID

BINS = 15


class Calibration:
    """Labelled pixels by the confidence of their prediction, in bins of equal width.

    Guo et al., 'On Calibration of Modern Neural Networks', ICML 2017, equations 2 to 5. Bin b of
    B holds the confidences from b / B to below (b + 1) / B, the last one 1 too.

    Attributes:
        pixels: int64 `[B]`, how many.
        right: int64 `[B]`, how many of them are predicted right.
        confidence: float64 `[B]`, the sum of their confidences.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros(BINS, np.int64)
        self.right = np.zeros(BINS, np.int64)
        self.confidence = np.zeros(BINS)

    def update(self, labels: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: predicted ids, their probabilities in [0, 1] and true ids, `[H, W]`.

        Pixels whose truth is 255 are not counted.
        """
        counted = truth != IGNORE_ID
        sure = confidence[counted].astype(np.float64)
        right = labels[counted] == truth[counted]
        place = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
        self.pixels += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[right], minlength=BINS)
        self.confidence += np.bincount(place, weights=sure, minlength=BINS)

    def add(self, other: Calibration) -> None:
        """Count all that `other` has counted."""
        self.pixels += other.pixels
        self.right += other.right
        self.confidence += other.confidence

    def figures(self) -> dict[str, Any]:
        """In percent and ready for JSON.

        ECE = sum over bins of n_b / n |accuracy_b - confidence_b|.

        Returns:
            ece: null where nothing was counted.
            reliability: `pixels`, `confidence` (mean) and `accuracy` of each bin, null in an
                empty one.
        """
        total = int(self.pixels.sum())
        gaps = np.abs(self.right - self.confidence)  # n_b |accuracy_b - confidence_b|
        return {
            'ece': 100.0 * float(gaps.sum()) / total if total else None,
            'reliability': {
                'pixels': self.pixels.tolist(),
                'confidence': _percent(self.confidence, self.pixels),
                'accuracy': _percent(self.right, self.pixels),
            },
        }


def _percent(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return [100.0 * value / count if count else None for value, count in pairs]
