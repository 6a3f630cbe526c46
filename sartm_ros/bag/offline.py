"""Predict the pairs of a bag in order, as the node would, without ROS and without dropping any."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.inference.prediction import Prediction
from sartm_ros.bag.ground_truth import GroundTruth
from sartm_ros.bag.reading import BagPair
from sartm_ros.bag.threads import read_ahead
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.stall_detection import StallPolicy, UsableImages

if TYPE_CHECKING:
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.inference.predictor import Predictor


@dataclass(frozen=True)
class PredictedPair:
    """A pair and its prediction.

    Attributes:
        pair: the messages of the bag.
        images: the decoded images that the network was given.
        modality: which images these are, one of `sartm_ros.settings.cameras.selections`.
        ground_truth: true ids, uint8 `[H, W]`, or None.
        prediction: has a confidence if there is a ground truth.
        predict_s: duration of the prediction in seconds, from images to labels.
    """

    pair: BagPair
    images: UsableImages
    modality: str
    ground_truth: np.ndarray | None
    prediction: Prediction
    predict_s: float


@dataclass(frozen=True)
class _DecodedPair:
    pair: BagPair
    images: UsableImages | SartmError
    ground_truth: np.ndarray | None = None


class OfflineRun:
    """One run of a predictor over the pairs of a bag.

    The calling thread runs the network; another one decodes the next pair meanwhile.

    Args:
        predictor: makes the labels.
        parameters: the node's parameters, for its treatment of stalled cameras.
        ground_truth_of: returns the true ids of a pair.
        overlay_every: one of so many pairs gets an overlay; 0: none.

    Attributes:
        dropped: pairs that were not predicted, by reason.
        error: of the first image that could not be read, whether its pair was predicted or not.
        range_warning: the first `UsableImages.range_warning` of the pairs that were predicted.
        waited_s: seconds in which the network had no pair.
    """

    def __init__(
        self,
        predictor: Predictor | OnnxPredictor,
        parameters: Parameters,
        ground_truth_of: GroundTruth,
        overlay_every: int = 0,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.error: SartmError | None = None
        self.range_warning = ''
        self.waited_s = 0.0
        self._predictor = predictor
        self._parameters = parameters
        self._ground_truth_of = ground_truth_of
        self._overlay_every = overlay_every

    def predict(self, pairs: Iterable[BagPair]) -> Iterator[PredictedPair]:
        """Yield the pairs that are not dropped. Raises what `pairs` and `ground_truth_of` raise."""
        count, x_modality = 0, self._parameters.x_modality
        with closing(read_ahead(self._decode(pairs))) as decoded:
            asked_s = time.perf_counter()
            for item in decoded:
                start_s = time.perf_counter()
                self.waited_s += start_s - asked_s
                images = item.images
                if isinstance(images, SartmError):
                    self.error = self.error or images
                    self.dropped['bad_image'] += 1
                elif images.modality is None:
                    self.dropped[f'stall_{images.states[x_modality]}'] += 1
                else:
                    self.error = self.error or images.error
                    self.range_warning = self.range_warning or images.range_warning
                    prediction = self._predictor.predict(
                        {'rgb': images.rgb, x_modality: images.x},
                        confidence=item.ground_truth is not None,
                        overlay=self._overlay_every > 0 and count % self._overlay_every == 0,
                        time_s=item.pair.stamp_ns * 1e-9,
                    )
                    count += 1
                    yield PredictedPair(
                        pair=item.pair,
                        images=images,
                        modality=images.modality,
                        ground_truth=item.ground_truth,
                        prediction=prediction,
                        predict_s=time.perf_counter() - start_s,
                    )
                asked_s = time.perf_counter()

    def _decode(self, pairs: Iterable[BagPair]) -> Iterator[_DecodedPair]:
        policy = StallPolicy(self._parameters.x_modality)
        for pair in pairs:
            try:
                images = policy.usable_images(pair, self._parameters)
            except SartmError as error:  # the node, too, continues with the next pair
                yield _DecodedPair(pair, error)
                continue
            known = self._ground_truth_of(pair) if images.modality else None
            yield _DecodedPair(pair, images, known)
