"""The real node with its network's arithmetic taken out, to see what the rest of it does.

Everything but `Predictor.predict` is as shipped. In its place, the label of a pixel is the thermal
count modulo 100, or 150 where no thermal image was given; the label of the first pixel is 100, plus
1 where the confidence and plus 2 where the overlay was asked for. The confidence is `thermal.low`,
the overlay is grey as `overlay.opacity` says. A thermal count of 255 in the
first pixel is an error of the network.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from sartm_model.inference import predictor
from sartm_model.inference.prediction import Prediction
from sartm_ros.node.main import main


def predict(
    self: Any,
    rgb: np.ndarray | None,
    thermal: np.ndarray | None,
    *,
    confidence: bool,
    overlay: bool,
    overlay_opacity: float,
    time_s: float,
) -> Prediction:
    """See the module's text."""
    if thermal is None:
        assert rgb is not None
        labels = np.full(rgb.shape[:2], 150, np.uint8)
    elif thermal[0, 0] == 255:
        raise RuntimeError('no such kernel')
    else:
        labels = (thermal % 100).astype(np.uint8)
    labels[0, 0] = 100 + confidence + 2 * overlay
    colours = np.full((*labels.shape, 3), round(overlay_opacity * 255), np.uint8)
    lows = np.full_like(labels, round(self.thermal_range.low))
    return Prediction(labels, lows if confidence else None, colours if overlay else None)


predictor.Predictor.predict = predict  # type: ignore[method-assign]
predictor.Predictor.warm_up = lambda *_: None  # type: ignore[method-assign]

if __name__ == '__main__':
    sys.exit(main())
