"""Run a predictor over a data set and count what it gets right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from sartm_model.datasets.base import Frame, PairDataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix, metrics


def evaluate(predict: Callable[[Frame], np.ndarray], dataset: PairDataset) -> dict[str, Any]:
    """The figures of `metrics` for a data set, and the same under 'day' and 'night' where the
    frames tell which they are.

    All frames of a group share one confusion matrix. Labels are compared at their own size.

    Args:
        predict: gives the class ids uint8 `[H, W]` of a frame, at the size of its labels.
        dataset: frames with labels; a bar shows the progress where stderr is a terminal.

    Raises:
        SartmError: a frame has no labels, or its prediction does not fit them; it is named.
    """
    from tqdm import tqdm

    classes = len(dataset.label_space)
    groups = {name: ConfusionMatrix(classes) for name in ('day', 'night', None)}
    bar = tqdm(dataset, total=len(dataset), unit='frame', disable=not sys.stderr.isatty())
    for frame in bar:
        if frame.labels is None:
            raise SartmError(f'frame {frame.name} has no labels; it cannot be evaluated')
        labels = predict(frame)
        try:
            groups[frame.condition].update(labels, frame.labels)
        except SartmError as error:
            raise SartmError(f'frame {frame.name}: {error}') from error
    overall = ConfusionMatrix(classes)
    for group in groups.values():
        overall.add(group)
    figures = metrics(overall, dataset.label_space)
    for name in ('day', 'night'):
        if groups[name].frames:
            figures[name] = metrics(groups[name], dataset.label_space)
    return figures
