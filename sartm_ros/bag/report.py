"""The report of a replay: one HTML page that needs nothing beside it, a table and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sartm_model.evaluation.contact_sheet import Row, contact_sheet, png_bytes
from sartm_model.evaluation.report.rendering import data_uri, format_percent, render
from sartm_model.evaluation.report.report import metrics_context
from sartm_model.labels import LabelSpace
from sartm_model.utils.files import write_file
from sartm_ros.bag.frame_record import FrameRecord
from sartm_ros.bag.timeline import timeline_svg


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    records: Sequence[FrameRecord],
    rows: Sequence[Row],
    label_space: LabelSpace,
) -> None:
    """Write `report.html`, `frames.csv` and `sheet.png` to `folder`, replacing earlier ones.

    Args:
        folder: created if it is missing.
        result: what `replay` returns.
        records: one per pair, for the table.
        rows: the frames to show; at least one.
        label_space: names and colours of the ids.
    """
    title = f'Replay of {Path(result["bag"]).name}'
    sheet = png_bytes(contact_sheet(rows, label_space, title, f'{result["pairs"]} pairs'))
    write_file(folder / 'sheet.png', sheet)
    write_file(folder / 'frames.csv', _table(records, label_space))
    write_file(folder / 'report.html', _page(title, result, records, sheet, label_space))


def _table(records: Sequence[FrameRecord], label_space: LabelSpace) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    shares = [f'{name}_percent' for name in label_space.classes]
    named = ['rgb_index', 'stamp_ns', 'modality', *records[0].states]
    measured = ['skew_ms', 'predict_ms', 'pixel_accuracy_percent', 'miou_percent']
    table.writerow([*named, *measured, *shares])
    for record in records:
        values = [record.skew_ms, record.predict_ms, record.accuracy, record.miou, *record.shares]
        table.writerow(
            [
                '' if record.index is None else record.index,
                record.stamp_ns,
                record.modality,
                *record.states.values(),
                *('' if value is None else f'{value:.3f}' for value in values),
            ]
        )
    return text.getvalue()


def _page(
    title: str,
    result: Mapping[str, Any],
    records: Sequence[FrameRecord],
    sheet: bytes,
    label_space: LabelSpace,
) -> str:
    descriptions = {record.modality: record.description for record in records}
    context = {
        'title': title,
        'counts': _counts(result, descriptions),
        'metrics': _metrics(result, descriptions, label_space),
        'timeline': Markup(timeline_svg(records)),
        'shares': [
            (name, color, sum(record.shares[label] for record in records) / len(records))
            for label, (name, color) in enumerate(
                zip(label_space.classes, label_space.colors, strict=True)
            )
        ],
        'sheet': data_uri(sheet, 'png'),
        'facts': _facts(result),
    }
    return render('replay.html.j2', context, __package__)


def _counts(result: Mapping[str, Any], descriptions: Mapping[str, str]) -> list[str]:
    modalities = [f'{count} {descriptions[name]}' for name, count in result['modalities'].items()]
    counts = [f'{result["pairs"]} pairs', *modalities]
    if result['metrics'] is not None:
        counts.append(f'{result["frames_with_truth"]} frames with ground truth')
    return counts


def _metrics(
    result: Mapping[str, Any], descriptions: Mapping[str, str], label_space: LabelSpace
) -> dict[str, Any] | None:
    """Return the metrics for the page, with a column per modality where there are several."""
    if result['metrics'] is None:
        return None
    parts = result['metrics_by_modality']
    groups = {descriptions[name]: part for name, part in parts.items()} if len(parts) > 1 else {}
    return metrics_context({'all': result['metrics'], **groups}, label_space)


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    skew, duration = result['skew_ms'], result['predict_ms']
    skews = '–' if skew is None else f'{skew["median"]:.1f} / {skew["max"]:.1f} ms'
    return [
        *((f'messages on {topic}', str(count)) for topic, count in result['messages'].items()),
        *((f'dropped: {reason}', str(count)) for reason, count in result['dropped'].items()),
        *((f'stalled: {reason}', str(count)) for reason, count in result['stalls'].items()),
        ('skew of a pair, median / maximum', skews),
        ('prediction, median / p99', f'{duration["median"]:.1f} / {duration["p99"]:.1f} ms'),
        ('pairs per second', f'{result["pairs_per_s"]:.2f}'),
        ('pairs per second of the network alone', f'{result["network_pairs_per_s"]:.2f}'),
        ('time in which the network waited for a pair', format_percent(result['waiting_percent'])),
    ]
