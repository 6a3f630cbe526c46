"""Run a predictor over every pair of a bag: offline, without ROS, nothing dropped for lack of time.

Messages are paired by the node's matcher, read by its image functions and judged by its policy for
stalls, so a replay gives the labels that the node would publish on a machine that is fast enough.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, MetricAccumulator
from sartm_model.inference.onnx_predictor import OnnxPredictor
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.modalities import DESCRIPTIONS
from sartm_ros.bag.contact_sheet import Row
from sartm_ros.bag.ground_truth import STAMPS, Truth, folder_truth, topic_truth
from sartm_ros.bag.offline import OfflineRun, Predicted
from sartm_ros.bag.reading import (
    LABELS_TOPIC,
    RGB_TOPIC,
    THERMAL_TOPIC,
    read_pairs,
    topics,
)
from sartm_ros.node.matching import make_pair_matcher
from sartm_ros.node.parameters import Parameters
from sartm_ros.sync.pair_matcher import PairMatcher

SHEET_ROWS = 8
COUNTERS = 4  # threads


@dataclass(frozen=True)
class FrameRecord:
    """What is kept of each pair: a line of the report's table.

    Attributes:
        index: place of the RGB message in the bag, from 0; None where thermal is alone.
        stamp_ns: the pair's header stamp in nanoseconds.
        modality: 'both', 'rgb' or 'thermal': what the network got to see.
        rgb, thermal: the stream's state, one of `stalls.STATES`.
        skew_ms: thermal stamp minus RGB stamp, or None where one was not used.
        predict_ms: duration of the prediction, images in to labels out.
        shares: percent of the pixels that each class got, in the order of the ids.
        accuracy: percent of the labelled pixels that are right, or None without ground truth.
        miou: mIoU in percent over the classes in the frame, or None without ground truth.
    """

    index: int | None
    stamp_ns: int
    modality: str
    rgb: str
    thermal: str
    skew_ms: float | None
    predict_ms: float
    shares: tuple[float, ...]
    accuracy: float | None
    miou: float | None


def replay(
    bag: Path,
    predictor: Predictor | OnnxPredictor,
    *,
    labels: Path | None = None,
    report: Path | None = None,
    rgb_topic: str = RGB_TOPIC,
    thermal_topic: str = THERMAL_TOPIC,
    labels_topic: str | None = None,
    settings: Parameters | None = None,
) -> dict[str, Any]:
    """Predict every pair of `bag` and measure the labels where the truth is known.

    Args:
        bag: rosbag2 folder, or one storage file.
        predictor: makes the labels.
        labels: folder of true ids, by stamp or in the order of the bag's RGB messages; see
            `sartm_ros.bag.ground_truth`. Where left out the truth is a topic, matched by stamp.
        report: folder to write `report.html`, `frames.csv` and `sheet.png` to.
        rgb_topic: topic of the RGB images.
        thermal_topic: topic of the thermal images.
        labels_topic: topic of the true ids; `LABELS_TOPIC` where left out, if the bag has it.
        settings: the node's, of which `sync.*` (policy nearest), `stall_after` and `*.on_stall`
            count here; its defaults where left out.

    Returns:
        bag, messages (by topic), pairs, modalities (pairs by what the network saw), dropped and
        stalls (by reason), skew_ms and predict_ms (median and greatest, median and 99th
        percentile), pairs_per_s (of the whole), network_pairs_per_s (1 / mean prediction),
        waiting_percent (part of the time in which the network waited for a pair),
        frames_with_truth, metrics (as of `sartm evaluate`, over those frames, by stamp) or None,
        and metrics_by_modality.

    Raises SartmError where the bag or the labels cannot be used, or no pair comes out of the bag.
    """
    if report is not None:
        from sartm_ros.bag.report import write_report  # draws, with what need not be installed

    settings = settings or Parameters()
    present = {name: topic.messages for name, topic in topics(bag).items()}
    counts = {topic: present.get(topic, 0) for topic in (rgb_topic, thermal_topic)}
    label_space = predictor.label_space
    truth_of: Truth = topic_truth
    if labels is not None:
        truth_of = folder_truth(labels, len(label_space), counts[rgb_topic])
        labels_topic = None
    elif labels_topic is None and LABELS_TOPIC in present:
        labels_topic = LABELS_TOPIC
    matcher = make_pair_matcher(settings)
    pairs = read_pairs(
        bag,
        matcher,
        rgb_topic=rgb_topic,
        thermal_topic=thermal_topic,
        labels_topic=labels_topic,
    )

    every = max(counts[rgb_topic] // SHEET_ROWS, 1) if report is not None else 0
    run = OfflineRun(predictor, settings, truth_of, every)
    tallies: dict[str, MetricAccumulator] = {}
    records: list[FrameRecord] = []
    rows: list[Row] = []
    start_s = time.perf_counter()
    counted = _count(run(pairs), label_space)
    for done, tally in tqdm(counted, total=counts[rgb_topic], unit='pair', disable=None):
        records.append(_record(done, tally, label_space))
        if tally is not None:
            tallies.setdefault(done.modality, MetricAccumulator(label_space)).merge(tally)
        if done.prediction.overlay is not None:
            rows.append(_row(done, records[-1]))
    total_s = time.perf_counter() - start_s

    dropped = dict(Counter(matcher.drops) + run.dropped)
    if not records:
        why = str(run.error) if run.error else f'dropped: {dropped or "nothing, it is empty"}'
        raise SartmError(f'no pair came out of {bag}; {why}')
    overall = MetricAccumulator(label_space)
    for tally in tallies.values():
        overall.merge(tally)
    overall.frame_miou = dict(sorted(overall.frame_miou.items(), key=lambda one: int(one[0])))
    if labels is not None and (labels / STAMPS).exists() and not overall.confusion.frames:
        raise SartmError(
            f'no stamp in {labels / STAMPS} is that of a pair; expected header stamps of '
            f'{rgb_topic}, such as {records[0].stamp_ns}'
        )
    skews_ms = [abs(record.skew_ms) for record in records if record.skew_ms is not None]
    predict_s = sum(record.predict_ms for record in records) / 1e3
    result = {
        'bag': str(bag),
        'messages': counts,
        'pairs': len(records),
        'modalities': _counts(record.modality for record in records),
        'dropped': dropped,
        'stalls': _counts(
            f'{which}_{state}'
            for record in records
            for which, state in (('rgb', record.rgb), ('thermal', record.thermal))
            if state != 'ok'
        ),
        'skew_ms': spread(skews_ms, 100, 'max') if skews_ms else None,
        'predict_ms': spread([record.predict_ms for record in records], 99, 'p99'),
        'pairs_per_s': round(len(records) / total_s, 3),
        'network_pairs_per_s': round(len(records) / predict_s, 3),
        'waiting_percent': round(100 * run.waited_s / total_s, 3),
        'frames_with_truth': overall.confusion.frames,
        'metrics': overall.compute() if tallies else None,
        'metrics_by_modality': {name: tallies[name].compute() for name in sorted(tallies)},
    }
    if report is not None:
        write_report(report, result, records, rows, label_space)
    return result


def default_matcher() -> PairMatcher:
    """The matcher of a node with default parameters."""
    return make_pair_matcher(Parameters())


def spread(values: Sequence[float], percentile: float, name: str) -> dict[str, float]:
    """Median and a percentile, which is called `name`, rounded to thousandths."""
    return {
        'median': round(float(np.median(values)), 3),
        name: round(float(np.percentile(values, percentile)), 3),
    }


def _count(
    predicted: Iterable[Predicted], label_space: LabelSpace
) -> Iterator[tuple[Predicted, MetricAccumulator | None]]:
    """Count several frames at a time: outlines take longer than a small network on a GPU."""
    waiting: deque[tuple[Predicted, Future[MetricAccumulator | None]]] = deque()
    with ThreadPoolExecutor(COUNTERS) as pool:
        for done in predicted:
            waiting.append((done, pool.submit(_counted, done, label_space)))
            if len(waiting) > COUNTERS:
                first, tally = waiting.popleft()
                yield first, tally.result()
        for done, tally in waiting:
            yield done, tally.result()


def _counted(done: Predicted, label_space: LabelSpace) -> MetricAccumulator | None:
    """What one frame with truth adds to the figures."""
    prediction = done.prediction
    if done.truth is None:
        return None
    confidence = prediction.confidence
    if confidence is not None:
        confidence = confidence / np.float32(255)
    tally = MetricAccumulator(label_space)
    try:
        tally.update(
            str(done.pair.stamp_ns), FramePrediction(prediction.labels, confidence), done.truth
        )
    except SartmError as error:
        raise SartmError(f'truth of RGB image {done.pair.index}: {error}') from error
    return tally


def _record(
    done: Predicted, tally: MetricAccumulator | None, label_space: LabelSpace
) -> FrameRecord:
    pair, view, labels = done.pair, done.view, done.prediction.labels
    classes = len(label_space)
    counts = np.bincount(labels.ravel(), minlength=classes)[:classes]
    truth, accuracy = done.truth, None
    if truth is not None and (known := truth != IGNORE_ID).any():
        accuracy = float(100.0 * (labels == truth)[known].mean())
    return FrameRecord(
        index=pair.index,
        stamp_ns=pair.stamp_ns,
        modality=done.modality,
        rgb=view.states['rgb'],
        thermal=view.states['thermal'],
        skew_ms=view.skew_ns / 1e6 if done.modality == 'both' else None,
        predict_ms=done.predict_s * 1e3,
        shares=tuple(100.0 * counts / labels.size),
        accuracy=accuracy,
        miou=None if tally is None else tally.frame_miou[str(pair.stamp_ns)],
    )


def _row(done: Predicted, record: FrameRecord) -> Row:
    stalled = '' if record.thermal == 'ok' else f' (thermal {record.thermal})'
    skew = '' if record.skew_ms is None else f'   skew {record.skew_ms:+.1f} ms'
    miou = '' if record.miou is None else f'   mIoU {record.miou:.1f} %'
    number = '' if record.index is None else f'frame {record.index}   '
    caption = f'{number}{DESCRIPTIONS[record.modality]}{stalled}{skew}{miou}'
    return Row(
        caption,
        done.view.rgb,
        done.view.thermal,
        done.prediction.labels,
        done.prediction.overlay,
        done.truth,
    )


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
