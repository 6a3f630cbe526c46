"""Run a predictor over every pair of a bag: offline, without ROS, nothing dropped for lack of time.

Messages are paired by the node's matcher and read by the node's image functions, so a replay gives
the labels that the node would publish on a machine that is fast enough.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sartm_model.datasets.folder import images_in
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
from sartm_ros.parameters import Parameters
from sartm_ros.pipeline import make_matcher
from sartm_ros.report import FrameRecord, write_report
from sartm_ros.sheet import Row

SHEET_ROWS = 8

Truth = Callable[[BagPair], 'np.ndarray | None']


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
    present = {name: topic.messages for name, topic in topics(bag).items()}
    counts = {topic: present.get(topic, 0) for topic in (rgb_topic, thermal_topic)}
    expected = min(counts.values())
    label_space = predictor.label_space
    truth_of = _truth(bag, labels, len(label_space), counts[rgb_topic])
    matcher = default_matcher()
    pairs = read_pairs(
        bag,
        matcher,
        rgb_topic=rgb_topic,
        thermal_topic=thermal_topic,
        labels_topic=LABELS_TOPIC if labels is None and LABELS_TOPIC in present else None,
    )

    confusion = ConfusionMatrix(len(label_space))
    records: list[FrameRecord] = []
    rows: list[Row] = []
    bad_images: list[SartmError] = []
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
        if truth is not None:
            try:
                confusion.update(prediction.labels, truth)
            except SartmError as error:
                raise SartmError(f'truth of RGB image {pair.index}: {error}') from error
        record = _record(pair, predict_s, prediction.labels, truth, len(label_space))
        records.append(record)
        if shown:
            caption = f'frame {record.index}   skew {record.skew_ms:+.1f} ms'
            overlay = prediction.overlay
            rows.append(Row(caption, rgb, thermal, prediction.labels, overlay, truth))
    dropped = dict(Counter(matcher.drops) + Counter({'bad_image': len(bad_images)}))
    if not records:
        why = str(bad_images[0]) if bad_images else f'dropped: {dropped or "nothing, it is empty"}'
        raise SartmError(f'no pair came out of {bag}; {why}')

    result = {
        'bag': str(bag),
        'messages': counts,
        'pairs': len(records),
        'dropped': dropped,
        'skew_ms': spread([abs(record.skew_ms) for record in records], 100, 'max'),
        'predict_ms': spread([record.predict_ms for record in records], 99, 'p99'),
        'frames_with_truth': confusion.frames,
        'metrics': metrics(confusion, label_space) if confusion.frames else None,
    }
    if report is not None:
        write_report(report, result, records, rows, label_space)
    return result


def default_matcher() -> PairMatcher:
    """The matcher of a node with default parameters."""
    matcher = make_matcher(Parameters())
    assert isinstance(matcher, PairMatcher)
    return matcher


def spread(values: Sequence[float], percentile: float, name: str) -> dict[str, float]:
    """Median and a percentile, which is called `name`, rounded to thousandths."""
    return {
        'median': round(float(np.median(values)), 3),
        name: round(float(np.percentile(values, percentile)), 3),
    }


def _truth(bag: Path, folder: Path | None, classes: int, rgb_messages: int) -> Truth:
    """Where the true ids of a pair come from: a folder, or the labels message of the pair."""
    if folder is None:
        return lambda pair: None if pair.labels is None else to_thermal(pair.labels)
    if not folder.is_dir():
        raise SartmError(f'{folder} is not a folder; expected one of label images')
    files = list(images_in(folder).values())
    if len(files) != rgb_messages:
        raise SartmError(
            f'{folder} has {len(files)} label images but {bag} has {rgb_messages} RGB images; '
            'expected one each, in the same order'
        )
    return lambda pair: read_labels(files[pair.index], classes)


def _record(
    pair: BagPair, predict_s: float, labels: np.ndarray, truth: np.ndarray | None, classes: int
) -> FrameRecord:
    counts = np.bincount(labels.ravel(), minlength=classes)[:classes]
    accuracy = None
    if truth is not None and (known := truth != IGNORE_ID).any():
        accuracy = float(100.0 * (labels == truth)[known].mean())
    return FrameRecord(
        index=pair.index,
        stamp_ns=pair.stamp_ns,
        skew_ms=pair.skew_ns / 1e6,
        predict_ms=predict_s * 1e3,
        shares=tuple(100.0 * counts / labels.size),
        accuracy=accuracy,
    )
