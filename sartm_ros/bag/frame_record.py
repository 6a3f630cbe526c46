"""What a replay measures of each pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, MetricAccumulator
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.modalities import describe
from sartm_ros.bag.offline import PredictedPair


@dataclass(frozen=True)
class FrameRecord:
    """The figures of one pair: a line of the report's table.

    Attributes:
        index: position of the RGB message in its topic, from 0; None if there is no RGB image.
        stamp_ns: the pair's stamp in nanoseconds: that of its header or, with `sync.stamp` arrival,
            the time at which the message was received.
        modality: the images that the network was given: 'both', 'rgb', or the second camera's.
        states: state of each camera, one of `sartm_ros.sync.stall_detection.STATES`, RGB first.
        skew_ms: stamp of the second camera minus RGB's; None if one of the images was not used.
        predict_ms: duration of the prediction, from images to labels.
        shares: percent of the pixels of each class, in the order of the ids.
        accuracy: percent of the labelled pixels that are right; None without ground truth.
        miou: mIoU in percent over the classes present; None without ground truth.
    """

    index: int | None
    stamp_ns: int
    modality: str
    states: Mapping[str, str]
    skew_ms: float | None
    predict_ms: float
    shares: tuple[float, ...]
    accuracy: float | None
    miou: float | None

    @property
    def description(self) -> str:
        """The images that the network was given, as text."""
        return describe(self.modality, tuple(self.states))


def measure(
    predicted: PredictedPair, label_space: LabelSpace
) -> tuple[FrameRecord, MetricAccumulator | None]:
    """Return a pair's figures and its counts for the metrics (None without ground truth).

    Raises SartmError if the ground truth does not fit the labels.
    """
    pair, labels = predicted.pair, predicted.prediction.labels
    classes = len(label_space)
    counts = np.bincount(labels.ravel(), minlength=classes)[:classes]
    metrics = _metrics(predicted, label_space)
    ground_truth, accuracy = predicted.ground_truth, None
    if ground_truth is not None and (known := ground_truth != IGNORE_ID).any():
        accuracy = float(100.0 * (labels == ground_truth)[known].mean())
    record = FrameRecord(
        index=pair.index,
        stamp_ns=pair.stamp_ns,
        modality=predicted.modality,
        states=predicted.images.states,
        skew_ms=predicted.images.skew_ns / 1e6 if predicted.modality == 'both' else None,
        predict_ms=predicted.predict_s * 1e3,
        shares=tuple(100.0 * counts / labels.size),
        accuracy=accuracy,
        miou=None if metrics is None else metrics.frame_miou[str(pair.stamp_ns)],
    )
    return record, metrics


def summarize(values: Iterable[float], percentile: float, name: str) -> dict[str, float]:
    """Return the median and a percentile under `name`, rounded to three decimals."""
    median, other = np.percentile(list(values), (50, percentile))
    return {'median': round(float(median), 3), name: round(float(other), 3)}


def _metrics(predicted: PredictedPair, label_space: LabelSpace) -> MetricAccumulator | None:
    if predicted.ground_truth is None:
        return None
    prediction = predicted.prediction
    confidence = prediction.confidence
    if confidence is not None:
        confidence = confidence / np.float32(255)
    answer = FramePrediction(prediction.labels, confidence)
    metrics = MetricAccumulator(label_space)
    try:
        metrics.update(str(predicted.pair.stamp_ns), answer, predicted.ground_truth)
    except SartmError as error:
        raise SartmError(f'ground truth of RGB image {predicted.pair.index}: {error}') from error
    return metrics
