"""Predict the pairs of a bag in order, decoding ahead so that the network need not wait."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.inference.onnx_predictor import OnnxPredictor
from sartm_model.inference.predictor import Prediction, Predictor
from sartm_ros.bag.ground_truth import Truth
from sartm_ros.bag.read_ahead import read_ahead
from sartm_ros.bag.reading import BagPair
from sartm_ros.node.parameters import Parameters
from sartm_ros.node.stall_detection import StallPolicy, UsableImages


@dataclass(frozen=True)
class Predicted:
    """A pair and what was made of it.

    Attributes:
        pair: as it was in the bag.
        view: what the network saw of it.
        modality: 'both', 'rgb' or 'thermal', of the view.
        truth: true ids, uint8 `[H, W]`, or None.
        prediction: with a confidence where there is truth.
        predict_s: duration of the prediction, images in to labels out.
    """

    pair: BagPair
    view: UsableImages
    modality: str
    truth: np.ndarray | None
    prediction: Prediction
    predict_s: float


@dataclass(frozen=True)
class _Decoded:
    pair: BagPair
    view: UsableImages | SartmError
    truth: np.ndarray | None = None


class OfflineRun:
    """Decodes in one thread and predicts in another; who iterates counts in a third.

    Args:
        predictor: makes the labels.
        settings: the node's, for stalls.
        truth_of: gives the true ids of a pair.
        overlay_every: of so many pairs one gets an overlay; 0: none.

    Attributes:
        dropped: pairs that were not predicted, by reason.
        error: of the first image that could not be read.
        waited_s: seconds in which the network had no pair.
    """

    def __init__(
        self,
        predictor: Predictor | OnnxPredictor,
        settings: Parameters,
        truth_of: Truth,
        overlay_every: int = 0,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.error: SartmError | None = None
        self.waited_s = 0.0
        self._predictor = predictor
        self._settings = settings
        self._truth_of = truth_of
        self._overlay_every = overlay_every

    def __call__(self, pairs: Iterable[BagPair]) -> Iterator[Predicted]:
        """Raises what `pairs` and `truth_of` raise."""
        with closing(read_ahead(self._predict(pairs))) as predicted:
            yield from predicted

    def _decode(self, pairs: Iterable[BagPair]) -> Iterator[_Decoded]:
        policy = StallPolicy()
        for pair in pairs:
            try:
                view = policy.usable_images(pair, self._settings)
            except SartmError as error:  # the node goes on with the next pair as well
                yield _Decoded(pair, error)
                continue
            yield _Decoded(pair, view, self._truth_of(pair) if view.modality else None)

    def _predict(self, pairs: Iterable[BagPair]) -> Iterator[Predicted]:
        made = 0
        with closing(read_ahead(self._decode(pairs))) as ready:
            asked_s = time.perf_counter()
            for pair, view, truth in ((one.pair, one.view, one.truth) for one in ready):
                start_s = time.perf_counter()
                self.waited_s += start_s - asked_s
                if isinstance(view, SartmError):
                    self.error = self.error or view
                    self.dropped['bad_image'] += 1
                elif view.modality is None:
                    self.dropped[f'stall_{view.states["thermal"]}'] += 1
                else:
                    prediction = self._predictor.predict(
                        view.rgb,
                        view.thermal,
                        confidence=truth is not None,
                        overlay=self._overlay_every > 0 and made % self._overlay_every == 0,
                        time_s=pair.stamp_ns * 1e-9,
                    )
                    made += 1
                    duration_s = time.perf_counter() - start_s
                    yield Predicted(pair, view, view.modality, truth, prediction, duration_s)
                asked_s = time.perf_counter()
