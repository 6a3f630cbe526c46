"""The report of a replay: one HTML page that needs nothing beside it, and a table of the frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartm_model.evaluation.metrics import MEANS
from sartm_model.files import write_file
from sartm_model.labels import LabelSpace
from sartm_model.page import class_name, figures, page, percent, picture, shade
from sartm_ros.sheet import Row, contact_sheet, png_bytes


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


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    records: Sequence[FrameRecord],
    rows: Sequence[Row],
    label_space: LabelSpace,
) -> None:
    """Write `report.html`, `frames.csv` and `sheet.png` to `folder`, replacing earlier ones.

    Args:
        folder: made where it is missing.
        result: what `replay` returns.
        records: one a pair, for the table.
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
    table.writerow(
        ['rgb_index', 'stamp_ns', 'skew_ms', 'predict_ms', 'pixel_accuracy_percent', *shares]
    )
    for record in records:
        accuracy = '' if record.accuracy is None else f'{record.accuracy:.3f}'
        table.writerow(
            [
                record.index,
                record.stamp_ns,
                f'{record.skew_ms:.3f}',
                f'{record.predict_ms:.3f}',
                accuracy,
                *(f'{share:.3f}' for share in record.shares),
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
    skew, duration = result['skew_ms'], result['predict_ms']
    facts = [
        *((f'messages on {topic}', str(count)) for topic, count in result['messages'].items()),
        ('pairs', str(result['pairs'])),
        *((f'dropped: {reason}', str(count)) for reason, count in result['dropped'].items()),
        ('skew of a pair, median / greatest', f'{skew["median"]:.1f} / {skew["max"]:.1f} ms'),
        ('prediction, median / p99', f'{duration["median"]:.1f} / {duration["p99"]:.1f} ms'),
    ]
    return page(
        title,
        f'{figures(facts)}\n'
        f'{_metrics(result, label_space)}\n'
        f'<h2>Share of the pixels</h2>\n{_shares(records, label_space)}\n'
        '<h2>Frames</h2>\n<p>Every frame is in <code>frames.csv</code>.</p>\n'
        f'{picture(sheet, "png", "contact sheet")}',
    )


def _metrics(result: Mapping[str, Any], label_space: LabelSpace) -> str:
    metrics = result['metrics']
    if metrics is None:
        return '<p>No ground truth was given, so there are no metrics.</p>'
    means = [(text, percent(metrics[name])) for name, text in MEANS.items()]
    heading = f'<h2>Metrics over {result["frames_with_truth"]} frames with ground truth</h2>'
    return f'{heading}\n{figures(means)}\n<h2>IoU</h2>\n' + _bars(
        metrics['per_class_iou'], label_space
    )


def _shares(records: Sequence[FrameRecord], label_space: LabelSpace) -> str:
    total = [sum(record.shares[k] for record in records) for k in range(len(label_space))]
    return _bars(
        {n: t / len(records) for n, t in zip(label_space.classes, total, strict=True)}, label_space
    )


def _bars(percents: Mapping[str, float | None], label_space: LabelSpace) -> str:
    """A bar a class; a class without a figure is shown as absent."""
    lines = []
    for name, color in zip(label_space.classes, label_space.colors, strict=True):
        value = percents.get(name)
        figure = 'absent' if value is None else percent(value)
        lines.append(
            f'<tr><td>{class_name(name, color)}</td><td class="figure">{figure}</td>'
            f'<td><span class="bar" style="width: {3 * (value or 0):.0f}px; '
            f'background: {shade(color)}"></span></td></tr>'
        )
    return '<table>\n' + '\n'.join(lines) + '\n</table>'
