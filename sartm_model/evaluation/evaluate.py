"""Run a predictor over a data set and count what it gets right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation.boundary import BoundaryCounts
from sartm_model.evaluation.calibration import Calibration
from sartm_model.evaluation.metrics import ConfusionMatrix, metrics
from sartm_model.labels import LabelSpace


class FramePrediction(NamedTuple):
    """What is predicted for a frame, at the size of its labels.

    Attributes:
        labels: uint8 `[H, W]` of class ids.
        confidence: float32 `[H, W]`, the probability of the predicted class.
    """

    labels: np.ndarray
    confidence: np.ndarray


class MetricAccumulator:
    """All that is counted of some of the frames."""

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space
        self.confusion = ConfusionMatrix(len(label_space))
        self.boundary = BoundaryCounts(len(label_space))
        self.calibration = Calibration()
        self.frame_miou: dict[str, float | None] = {}

    def update(self, name: str, answer: FramePrediction | np.ndarray, truth: np.ndarray) -> None:
        """Count the answer to the frame `name`, or its labels alone: see `evaluate`.

        Raises SartmError where it does not fit the true ids, `[H, W]`.
        """
        labels = answer.labels if isinstance(answer, FramePrediction) else answer
        confusion = ConfusionMatrix(len(self.label_space))
        confusion.update(labels, truth)
        self.frame_miou[name] = metrics(confusion, self.label_space)['miou_present']
        self.confusion.add(confusion)
        self.boundary.update(labels, truth)
        if isinstance(answer, FramePrediction):
            self.calibration.update(labels, answer.confidence, truth)

    def add(self, other: MetricAccumulator) -> None:
        """Count all that `other` has counted."""
        self.confusion.add(other.confusion)
        self.boundary.add(other.boundary)
        self.calibration.add(other.calibration)
        self.frame_miou |= other.frame_miou

    def figures(self) -> dict[str, Any]:
        """Ready for JSON; what they are is said at `evaluate`."""
        return {
            **metrics(self.confusion, self.label_space),
            **self.boundary.figures(self.label_space),
            **self.calibration.figures(),
            'frame_miou': self.frame_miou,
        }


def evaluate(
    predict: Callable[[Frame], FramePrediction | np.ndarray], dataset: PairDataset
) -> dict[str, Any]:
    """The figures of a data set, and the same under 'day' and 'night' where the frames tell which
    they are.

    All frames of a group share one count. Labels are compared at their own size.

    Args:
        predict: gives the answer to a frame, or its labels alone: then nothing is said of the
            confidence (`ece` is null).
        dataset: frames with labels; a bar shows the progress where stderr is a terminal.

    Returns:
        the figures of `metrics`, `BoundaryCounts.figures` and `Calibration.figures`, and
        frame_miou: `miou_present` of each frame by its name (null: nothing in it is labelled).

    Raises:
        SartmError: a frame has no labels, or its prediction does not fit them; it is named.
    """
    from tqdm import tqdm

    groups = {name: MetricAccumulator(dataset.label_space) for name in ('day', 'night', None)}
    names = []  # in the order of the data set
    bar = tqdm(dataset, total=len(dataset), unit='frame', disable=not sys.stderr.isatty())
    for frame in bar:
        if frame.labels is None:
            raise SartmError(f'frame {frame.name} has no labels; it cannot be evaluated')
        names.append(frame.name)
        answer = predict(frame)
        try:
            groups[frame.condition].update(frame.name, answer, frame.labels)
        except SartmError as error:
            raise SartmError(f'frame {frame.name}: {error}') from error
    overall = MetricAccumulator(dataset.label_space)
    for group in groups.values():
        overall.add(group)
    overall.frame_miou = {name: overall.frame_miou[name] for name in names}
    figures = overall.figures()
    for name in ('day', 'night'):
        if groups[name].frame_miou:
            figures[name] = groups[name].figures()
    return figures
