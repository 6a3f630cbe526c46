"""Run a predictor over every pair of a bag and measure it, offline and without ROS.

The node's own matcher pairs the messages, its functions decode the images and its policy handles
stalled cameras, so a replay gives the labels that the node would publish on a fast machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from sartm_model.errors import SartmError
from sartm_model.evaluation.contact_sheet import Row
from sartm_model.evaluation.evaluate import MetricAccumulator
from sartm_model.labels import LabelSpace
from sartm_ros.bag.frame_record import FrameRecord, measure, summarize
from sartm_ros.bag.ground_truth import (
    STAMPS_FILE,
    GroundTruth,
    ground_truth_from_folder,
    ground_truth_from_topic,
)
from sartm_ros.bag.offline import OfflineRun, PredictedPair
from sartm_ros.bag.reading import LABELS_TOPIC, LABELS_WAIT_NS, bag_topics, read_pairs
from sartm_ros.bag.threads import map_behind
from sartm_ros.settings.cameras import (
    camera_topics,
    require_two_topics,
    with_topics,
    without_unused_topics,
)
from sartm_ros.settings.parameter_file import full_name
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.matching import make_pair_matcher

if TYPE_CHECKING:
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.inference.predictor import Predictor

SHEET_ROWS = 8


def replay(
    bag: Path,
    predictor: Predictor | OnnxPredictor,
    *,
    labels: Path | None = None,
    report: Path | None = None,
    labels_topic: str | None = None,
    parameters: Parameters | None = None,
) -> dict[str, Any]:
    """Predict every pair of `bag` and measure the labels where there is ground truth.

    Args:
        bag: rosbag2 folder, or one storage file.
        predictor: makes the labels.
        labels: folder of true ids, by stamp or in the order of the bag's RGB messages; see
            `sartm_ros.bag.ground_truth`. If None, they come from a topic, matched by stamp.
        report: folder to write `report.html`, `frames.csv` and `sheet.png` to.
        labels_topic: topic of the true ids; `LABELS_TOPIC` if None and the bag has labels there; ''
            for none.
        parameters: the node's parameters, of which the topics, `x_modality`, `sync.*` (policy
            nearest), `stall_after`, `*.on_stall` and, of `thermal.*`, `hold_at_most`,
            `detect_frozen`, `shift`, `crop` and `invalid` count here. The predictor has the rest.
            The node's defaults if None. A topic whose images the network does not take is not read.

    Returns:
        bag, messages (by topic), pairs, modalities (number of pairs by the images used), dropped
        and stalls (by reason), first_error (of an image that could not be read, or None),
        range_warning (of the first thermal image without contrast in the fixed range, or None),
        labels_warning (why none of the labels that the bag has are used, or None),
        skew_ms and predict_ms (median and greatest, median and 99th percentile), pairs_per_s (of
        the whole), network_pairs_per_s (1 / mean prediction), waiting_percent (share of the time
        in which the network waited for a pair), frames_with_truth, metrics (those of `sartm
        evaluate` over these frames, by stamp) or None, and metrics_by_modality.

    Raises SartmError if the bag or the labels cannot be used, the bag has no pair, or no labels of
    a list of stamps or of `labels_topic` belong to a pair.
    """
    if report is not None:
        from sartm_ros.bag.report import write_report  # needs matplotlib, an optional package

    parameters = _with_used_topics(parameters or Parameters(), predictor.modalities)
    rgb_topic, x_topic = camera_topics(parameters).values()
    first_topic = rgb_topic or x_topic
    if labels is not None:
        labels_topic = ''
    wanted_labels = labels_topic  # by the caller
    present = bag_topics(bag, [name for name in (rgb_topic, x_topic, wanted_labels) if name])
    if labels_topic is None and LABELS_TOPIC in present and present[LABELS_TOPIC].messages:
        labels_topic = LABELS_TOPIC
    counts = {topic: present[topic].messages for topic in (rgb_topic, x_topic) if topic}
    label_space = predictor.label_space
    ground_truth_of: GroundTruth = ground_truth_from_topic
    if labels is not None:
        ground_truth_of = ground_truth_from_folder(labels, len(label_space), counts[first_topic])
    matcher = make_pair_matcher(parameters)
    pairs = read_pairs(
        bag,
        matcher,
        rgb_topic=rgb_topic,
        x_topic=x_topic,
        labels_topic=labels_topic,
        by_arrival=parameters.sync_stamp == 'arrival',
    )
    overlay_every = max(counts[first_topic] // SHEET_ROWS, 1) if report is not None else 0
    run = OfflineRun(predictor, parameters, ground_truth_of, overlay_every)

    start_s = time.perf_counter()
    predicted = tqdm(run.predict(pairs), total=counts[first_topic], unit='pair', disable=None)
    records, rows, by_modality = _measure_all(predicted, label_space)
    total_s = time.perf_counter() - start_s

    dropped = dict(Counter(matcher.drops) + run.dropped)
    if not records:
        reason = str(run.error) if run.error else f'dropped: {dropped or "nothing, it is empty"}'
        raise SartmError(f'no pair came out of {bag}; {reason}')
    overall = _combined(by_modality.values(), label_space)
    labels_warning = None
    if not overall.confusion.frames:
        expected = f'expected header stamps of {first_topic}'
        if parameters.sync_stamp == 'header':
            expected += f', such as {records[0].stamp_ns}'
        if labels is not None and (labels / STAMPS_FILE).exists():
            raise SartmError(f'no stamp in {labels / STAMPS_FILE} is that of a pair; {expected}')
        if labels_topic:
            labels_warning = (
                f'no labels on {labels_topic} belong to a pair; {expected}, received at most '
                f'{LABELS_WAIT_NS / 1e9:g} s after it'
            )
            if wanted_labels:
                raise SartmError(labels_warning)
    result = {
        'bag': str(bag),
        'messages': counts,
        'pairs': len(records),
        **_statistics(records, dropped),
        'first_error': None if run.error is None else str(run.error),
        'range_warning': run.range_warning or None,
        'labels_warning': labels_warning,
        'pairs_per_s': round(len(records) / total_s, 3),
        'network_pairs_per_s': round(1e3 * len(records) / sum(r.predict_ms for r in records), 3),
        'waiting_percent': round(100 * run.waited_s / total_s, 3),
        'frames_with_truth': overall.confusion.frames,
        'metrics': overall.compute() if by_modality else None,
        'metrics_by_modality': {name: by_modality[name].compute() for name in sorted(by_modality)},
    }
    if report is not None:
        write_report(report, result, records, rows, label_space)
    return result


def _with_used_topics(parameters: Parameters, modalities: Sequence[str]) -> Parameters:
    """Return the parameters with full topic names, '' for those that the network does not take."""
    full_names = {name: full_name(topic) for name, topic in camera_topics(parameters).items()}
    require_two_topics(parameters, full_names)
    return without_unused_topics(with_topics(parameters, full_names), modalities)


def _measure_all(
    predicted: Iterable[PredictedPair], label_space: LabelSpace
) -> tuple[list[FrameRecord], list[Row], dict[str, MetricAccumulator]]:
    """Return the figures of each pair, the pairs with an overlay, and the metrics by modality."""
    records: list[FrameRecord] = []
    rows: list[Row] = []
    by_modality: dict[str, MetricAccumulator] = {}
    # Computing boundary F1 takes longer than a small network on a GPU.
    for pair, (record, metrics) in map_behind(partial(measure, label_space=label_space), predicted):
        records.append(record)
        if metrics is not None:
            by_modality.setdefault(record.modality, MetricAccumulator(label_space)).merge(metrics)
        if pair.prediction.overlay is not None:
            rows.append(_row(pair, record))
    return records, rows, by_modality


def _combined(parts: Iterable[MetricAccumulator], label_space: LabelSpace) -> MetricAccumulator:
    """Return the sum of the parts, its frames in the order of their stamps."""
    overall = MetricAccumulator(label_space)
    for part in parts:
        overall.merge(part)
    overall.frame_miou = dict(sorted(overall.frame_miou.items(), key=lambda item: int(item[0])))
    return overall


def _statistics(records: Sequence[FrameRecord], dropped: dict[str, int]) -> dict[str, Any]:
    skews_ms = [abs(record.skew_ms) for record in records if record.skew_ms is not None]
    stalls = [
        f'{camera}_{state}'
        for record in records
        for camera, state in record.states.items()
        if state not in ('ok', 'off')
    ]
    return {
        'modalities': _counts(record.modality for record in records),
        'dropped': dropped,
        'stalls': _counts(stalls),
        'skew_ms': summarize(skews_ms, 100, 'max') if skews_ms else None,
        'predict_ms': summarize((record.predict_ms for record in records), 99, 'p99'),
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _row(predicted: PredictedPair, record: FrameRecord) -> Row:
    images = predicted.images
    _, x_modality = images.states
    number = '' if record.index is None else f'frame {record.index}   '
    state = images.states[x_modality]
    stalled = '' if state in ('ok', 'off') else f' ({x_modality} {state})'
    skew = '' if record.skew_ms is None else f'   skew {record.skew_ms:+.1f} ms'
    miou = '' if record.miou is None else f'   mIoU {record.miou:.1f} %'
    return Row(
        caption=f'{number}{record.description}{stalled}{skew}{miou}',
        images={'rgb': images.rgb, x_modality: images.x},
        labels=predicted.prediction.labels,
        overlay=predicted.prediction.overlay,
        ground_truth=predicted.ground_truth,
    )
