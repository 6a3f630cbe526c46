"""The node with an instant network, for tests of everything around the network.

Only `Predictor.predict` is replaced. The label of a pixel is its thermal count modulo 100, or 150
without a thermal image. The label of the first pixel is 100, plus 1 if the confidence and plus 2 if
the overlay was requested. The confidence is `thermal.low`; the overlay is grey, of brightness
`overlay.opacity`. A thermal count of 255 in the first pixel raises an error of the network.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from sartm_model.inference import predictor
from sartm_model.inference.prediction import Prediction
from sartm_ros.diagnosis import diagnostics
from sartm_ros.node import lifecycle_node
from sartm_ros.node.main import main


def predict(
    self: Any,
    images: Mapping[str, np.ndarray | None],
    *,
    confidence: bool,
    overlay: bool,
    overlay_opacity: float,
    time_s: float,
    copy: bool,
) -> Prediction:
    """See the module's text."""
    rgb, thermal = images['rgb'], images['thermal']
    if thermal is None:
        assert rgb is not None
        labels = np.full(rgb.shape[:2], 150, np.uint8)
    elif thermal[0, 0] == 255:
        raise RuntimeError('no such kernel')
    else:
        labels = (thermal % 100).astype(np.uint8)
    labels[0, 0] = 100 + confidence + 2 * overlay
    colours = np.full((*labels.shape, 3), round(overlay_opacity * 255), np.uint8)
    lows = np.full_like(labels, round(self.thermal_settings.low))
    return Prediction(labels, lows if confidence else None, colours if overlay else None)


predictor.Predictor.predict = predict  # type: ignore[method-assign]
predictor.Predictor.warm_up = lambda *_: None  # type: ignore[method-assign]

# The tests wait for reports, and expect every warning in the log.
lifecycle_node.REPORT_PERIOD_S = 0.2
diagnostics.LOG_PERIOD_S = 0.0
diagnostics.LASTS_S = 0.5

if __name__ == '__main__':
    sys.exit(main())
