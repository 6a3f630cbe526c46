"""Reliability curve and expected calibration error of the predicted confidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.labels import IGNORE_ID

NUM_BINS = 15


class Calibration:
    """Counts labelled pixels by the confidence of their prediction, in bins of equal width.

    Guo et al., 'On Calibration of Modern Neural Networks', ICML 2017, equations 2 to 5. Bin b of
    B holds the confidences in [b / B, (b + 1) / B), the last one also 1.

    Attributes:
        pixels: int64 `[B]`, number of pixels.
        correct: int64 `[B]`, how many of them are predicted correctly.
        confidence: float64 `[B]`, the sum of their confidences.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros(NUM_BINS, np.int64)
        self.correct = np.zeros(NUM_BINS, np.int64)
        self.confidence = np.zeros(NUM_BINS)

    def update(self, labels: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> None:
        """Add one image: predicted ids, their probabilities in [0, 1] and true ids, `[H, W]`.

        Pixels whose true id is 255 are not counted.
        """
        counted = truth != IGNORE_ID
        values = confidence[counted].astype(np.float64)
        correct = labels[counted] == truth[counted]
        bins = np.clip((values * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
        self.pixels += np.bincount(bins, minlength=NUM_BINS)
        self.correct += np.bincount(bins[correct], minlength=NUM_BINS)
        self.confidence += np.bincount(bins, weights=values, minlength=NUM_BINS)

    def merge(self, other: Calibration) -> None:
        """Add the counts of `other`."""
        self.pixels += other.pixels
        self.correct += other.correct
        self.confidence += other.confidence

    def compute(self) -> dict[str, Any]:
        """Return the calibration in percent, ready for JSON.

        ECE = sum over bins of n_b / n |accuracy_b - confidence_b|.

        Returns:
            ece: expected calibration error, null if nothing was counted.
            reliability: `pixels`, `confidence` (mean) and `accuracy` of each bin, null in an
                empty one.
        """
        total = int(self.pixels.sum())
        gaps = np.abs(self.correct - self.confidence)  # n_b |accuracy_b - confidence_b|
        return {
            'ece': 100.0 * float(gaps.sum()) / total if total else None,
            'reliability': {
                'pixels': self.pixels.tolist(),
                'confidence': _percent(self.confidence, self.pixels),
                'accuracy': _percent(self.correct, self.pixels),
            },
        }


def _percent(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return [100.0 * value / count if count else None for value, count in pairs]
