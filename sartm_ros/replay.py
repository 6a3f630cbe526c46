"""Run a predictor over every pair of a bag: offline, without ROS, nothing dropped for lack of time.

Messages are paired by the node's matcher and read by the node's image functions, so a replay gives
the labels that the node would publish on a machine that is fast enough.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sartm_model.datasets.images import read_labels
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix, metrics
from sartm_model.labels import IGNORE_ID
from sartm_model.predictor import Predictor
from sartm_ros.bag import (
    LABELS_TOPIC,
    RGB_TOPIC,
    THERMAL_TOPIC,
    BagPair,
    read_pairs,
    topics,
)
from sartm_ros.images import to_rgb, to_thermal
from sartm_ros.matcher import PairMatcher
from sartm_ros.sheet import Row

MAX_SKEW_S = 0.05
MAX_WAIT_S = 0.2
SHEET_ROWS = 8
_NS = 1_000_000_000

Truth = Callable[[BagPair], 'np.ndarray | None']


@dataclass(frozen=True)
class FrameRecord:
    """What is kept of each pair: a line of the report's table.

    Attributes:
        index: place of the RGB message in the bag, from 0.
        stamp_ns: its header stamp in nanoseconds.
        skew_ms: thermal stamp minus RGB stamp.
        predict_ms: duration of the prediction, images in to labels out.
        shares: percent of the pixels that each class got, in the order of the ids.
        accuracy: percent of the labelled pixels that are right, or None without ground truth.
    """

    index: int
    stamp_ns: int
    skew_ms: float
    predict_ms: float
    shares: tuple[float, ...]
    accuracy: float | None


def replay(
    bag: Path,
    predictor: Predictor,
    *,
    labels: Path | None = None,
    report: Path | None = None,
    rgb_topic: str = RGB_TOPIC,
    thermal_topic: str = THERMAL_TOPIC,
) -> dict[str, Any]:
    """Predict every pair of `bag` and measure the labels where the truth is known.

    Args:
        bag: rosbag2 folder, or one storage file.
        predictor: makes the labels.
        labels: folder of true ids, in the order of the bag's RGB messages and as many. Where left
            out the truth is the topic `LABELS_TOPIC`, matched by stamp, where the bag has it.
        report: folder to write `report.html`, `frames.csv` and `sheet.png` to.
        rgb_topic: topic of the RGB images.
        thermal_topic: topic of the thermal images.

    Returns:
        bag, messages (by topic), pairs, dropped (by reason), skew_ms and predict_ms (median and
        greatest, median and 99th percentile), frames_with_truth, and metrics (as of `sartm
        evaluate`, over those frames) or None.

    Raises SartmError where the bag or the labels cannot be used, or no pair comes out of the bag.
    """
    present = topics(bag)
    classes = len(predictor.label_space)
    truth_topic = LABELS_TOPIC if labels is None and LABELS_TOPIC in present else None
    truth_of = _truth(
        bag, labels, classes, present[rgb_topic].messages if rgb_topic in present else 0
    )
    matcher = PairMatcher(round(MAX_SKEW_S * _NS), round(MAX_WAIT_S * _NS))
    pairs = read_pairs(
        bag, matcher, rgb_topic=rgb_topic, thermal_topic=thermal_topic, labels_topic=truth_topic
    )
    counts = {
        topic: present[topic].messages for topic in (rgb_topic, thermal_topic) if topic in present
    }
    expected = min(counts.values(), default=0)

    confusion = ConfusionMatrix(classes)
    records: list[FrameRecord] = []
    rows: list[Row] = []
    bad_images: list[SartmError] = []
    with_truth = 0
    for pair in tqdm(pairs, total=expected, unit='pair', disable=None):
        try:
            rgb, thermal = to_rgb(pair.rgb), to_thermal(pair.thermal)
        except SartmError as error:  # the node goes on with the next pair as well
            bad_images.append(error)
            continue
        shown = report is not None and len(records) % max(expected // SHEET_ROWS, 1) == 0
        start_s = time.perf_counter()
        prediction = predictor.predict(rgb, thermal, overlay=shown)
        predict_s = time.perf_counter() - start_s
        truth = truth_of(pair)
        accuracy = None
        if truth is not None:
            _require_shape(truth, prediction.labels, pair)
            confusion.update(prediction.labels, truth)
            with_truth += 1
            accuracy = _accuracy(prediction.labels, truth)
        record = FrameRecord(
            index=pair.index,
            stamp_ns=pair.stamp_ns,
            skew_ms=pair.skew_ns / 1e6,
            predict_ms=predict_s * 1e3,
            shares=tuple(
                100.0
                * np.bincount(prediction.labels.ravel(), minlength=classes)[:classes]
                / prediction.labels.size
            ),
            accuracy=accuracy,
        )
        records.append(record)
        if shown:
            overlay = prediction.overlay
            rows.append(Row(_caption(record), rgb, thermal, prediction.labels, overlay, truth))
    dropped = dict(Counter(matcher.drops) + Counter({'bad_image': len(bad_images)}))
    if not records:
        why = str(bad_images[0]) if bad_images else f'dropped: {dropped or "nothing, it is empty"}'
        raise SartmError(f'no pair came out of {bag}; {why}')

    result = {
        'bag': str(bag),
        'messages': counts,
        'pairs': len(records),
        'dropped': dropped,
        'skew_ms': _spread([abs(record.skew_ms) for record in records], 100, 'max'),
        'predict_ms': _spread([record.predict_ms for record in records], 99, 'p99'),
        'frames_with_truth': with_truth,
        'metrics': metrics(confusion, predictor.label_space) if with_truth else None,
    }
    if report is not None:
        from sartm_ros.report import write_report

        write_report(report, result, records, rows, predictor.label_space)
    return result


def _truth(bag: Path, folder: Path | None, classes: int, rgb_messages: int) -> Truth:
    """Where the true ids of a pair come from: a folder, or the labels message of the pair."""
    if folder is None:

        def from_message(pair: BagPair) -> np.ndarray | None:
            if pair.labels is None:
                return None
            ids = to_thermal(pair.labels)
            foreign = ids[(ids >= classes) & (ids != IGNORE_ID)]
            if foreign.size:
                raise SartmError(
                    f'{bag}: {LABELS_TOPIC} has id {foreign.flat[0]}, but the checkpoint knows '
                    f'{classes} classes'
                )
            return ids

        return from_message

    files = sorted(folder.glob('*.png'))
    if len(files) != rgb_messages:
        raise SartmError(
            f'{folder} has {len(files)} .png files but {bag} has {rgb_messages} RGB images; '
            'expected one each, in the same order'
        )
    return lambda pair: read_labels(files[pair.index], classes)


def _require_shape(truth: np.ndarray, predicted: np.ndarray, pair: BagPair) -> None:
    if truth.shape != predicted.shape:
        raise SartmError(
            f'the true labels of RGB image {pair.index} are {truth.shape[1]}x{truth.shape[0]}, '
            f'the image is {predicted.shape[1]}x{predicted.shape[0]}'
        )


def _accuracy(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    known = truth != IGNORE_ID
    return float(100.0 * (predicted == truth)[known].mean()) if known.any() else None


def _caption(record: FrameRecord) -> str:
    return f'frame {record.index}   skew {record.skew_ms:+.1f} ms'


def _spread(values: list[float], percentile: float, name: str) -> dict[str, float]:
    return {
        'median': round(float(np.median(values)), 3),
        name: round(float(np.percentile(values, percentile)), 3),
    }
