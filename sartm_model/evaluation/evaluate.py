"""Run a predictor over a data set and compute its metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame, split_conditions
from sartm_model.errors import SartmError
from sartm_model.evaluation.boundary import BoundaryCounts
from sartm_model.evaluation.calibration import Calibration
from sartm_model.evaluation.f_measure import FMeasure
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import LabelSpace

RESERVED = frozenset({'all', 'settings', 'unknown'})
"""Names that no condition may have, because a result or report uses them."""


class FramePrediction(NamedTuple):
    """What is predicted for a frame, at the size of its labels.

    Attributes:
        labels: uint8 `[H, W]` of class ids.
        confidence: float32 `[H, W]`, the probability of the predicted class; None leaves the
            calibration out.
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None


class MetricAccumulator:
    """Accumulates everything that the metrics of a group of frames are computed from.

    Args:
        label_space: the classes.
        f_measure: whether the weighted F-measure is computed, which takes longer than all others.

    Attributes:
        frame_miou: `miou_present` of each frame by its name.
    """

    def __init__(self, label_space: LabelSpace, *, f_measure: bool = False) -> None:
        self.label_space = label_space
        self.confusion = ConfusionMatrix(len(label_space))
        self.boundary = BoundaryCounts(len(label_space))
        self.calibration = Calibration()
        self.f_measure = FMeasure(len(label_space)) if f_measure else None
        self.frame_miou: dict[str, float | None] = {}

    def update(self, name: str, prediction: FramePrediction, truth: np.ndarray) -> None:
        """Add the frame `name` with its true ids, uint8 `[H, W]`.

        Raises SartmError if the prediction does not fit the true ids.
        """
        labels, confidence = prediction
        confusion = ConfusionMatrix(len(self.label_space))
        confusion.update(labels, truth)
        self.frame_miou[name] = confusion.compute(self.label_space)['miou_present']
        self.confusion.merge(confusion)
        self.boundary.update(labels, truth)
        if confidence is not None:
            self.calibration.update(labels, confidence, truth)
        if self.f_measure is not None:
            self.f_measure.update(labels, truth)

    def merge(self, other: MetricAccumulator) -> None:
        """Add all frames of `other`, which computes the same metrics."""
        self.confusion.merge(other.confusion)
        self.boundary.merge(other.boundary)
        self.calibration.merge(other.calibration)
        if self.f_measure is not None and other.f_measure is not None:
            self.f_measure.merge(other.f_measure)
        self.frame_miou |= other.frame_miou

    def compute(self) -> dict[str, Any]:
        """Return the metrics that `evaluate` documents, ready for JSON."""
        return {
            **self.confusion.compute(self.label_space),
            **self.boundary.compute(self.label_space),
            **self.calibration.compute(),
            **({} if self.f_measure is None else self.f_measure.compute(self.label_space)),
            'frame_miou': self.frame_miou,
        }


def evaluate(
    predict: Callable[[Frame], FramePrediction], dataset: FrameDataset, *, f_measure: bool = False
) -> dict[str, Any]:
    """Compute the metrics of a data set over all its frames, and over those of each condition.
    A frame that has several conditions counts in each of them.

    The pixels of all frames of a group are counted together. Labels are compared at their own
    size. A progress bar is shown if stderr is a terminal.

    Args:
        predict: makes the prediction for a frame.
        dataset: frames with labels.
        f_measure: also compute the weighted F-measure.

    Returns:
        the metrics of `ConfusionMatrix.compute`, `BoundaryCounts.compute`, `Calibration.compute`
        and, if it is requested, `FMeasure.compute`; frame_miou: `miou_present` of each frame by its
        name (null: nothing in it is labelled); and by the name of each condition that frames have,
        such as day and night, the same metrics of these frames.

    Raises:
        SartmError: a frame has no labels, or its prediction does not fit them, or its condition is
            named as a metric or as another key of the result; the frame is named.
    """
    from tqdm import tqdm

    new_group = partial(MetricAccumulator, dataset.label_space, f_measure=f_measure)
    overall = new_group()
    reserved = overall.compute().keys() | RESERVED
    combinations: dict[str | None, MetricAccumulator] = {}
    names = []  # in the order of the data set
    bar = tqdm(dataset, total=len(dataset), unit='frame', disable=not sys.stderr.isatty())
    for frame in bar:
        if frame.labels is None:
            raise SartmError(f'frame {frame.name} has no labels; it cannot be evaluated')
        if taken := [c for c in split_conditions(frame.condition) if c in reserved]:
            raise SartmError(
                f'frame {frame.name} has the condition {taken[0]}, which is the name of a '
                'metric or of another part of the result; rename the condition'
            )
        names.append(frame.name)
        prediction = predict(frame)
        try:
            combination = combinations.setdefault(frame.condition, new_group())
            combination.update(frame.name, prediction, frame.labels)
        except SartmError as error:
            raise SartmError(f'frame {frame.name}: {error}') from error
    groups: dict[str, MetricAccumulator] = {}
    for joined, combination in combinations.items():
        overall.merge(combination)
        for condition in split_conditions(joined):
            groups.setdefault(condition, new_group()).merge(combination)
    overall.frame_miou = {name: overall.frame_miou[name] for name in names}
    result = overall.compute()
    for name in sorted(groups):
        result[name] = groups[name].compute()
    return result


def condition_groups(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of each condition from what `evaluate` returned, by its name."""
    return {
        name: group
        for name, group in result.items()
        if isinstance(group, dict) and 'frame_miou' in group
    }
