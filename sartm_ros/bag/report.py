"""The report of a replay: one HTML page that needs nothing beside it, a table and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartm_model.evaluation.report.page import class_name, figures, page, percent, picture, shade
from sartm_model.evaluation.report.report import STYLE, figure_sections, key_figures
from sartm_model.labels import LabelSpace
from sartm_model.utils.files import write_file
from sartm_ros.bag.contact_sheet import Row, contact_sheet, png_bytes
from sartm_ros.bag.replay import MODALITIES, FrameRecord
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
    named = ['rgb_index', 'stamp_ns', 'modality', 'rgb', 'thermal']
    measured = ['skew_ms', 'predict_ms', 'pixel_accuracy_percent', 'miou_percent']
    table.writerow([*named, *measured, *shares])
    for record in records:
        values = [record.skew_ms, record.predict_ms, record.accuracy, record.miou, *record.shares]
        table.writerow(
            [
                '' if record.index is None else record.index,
                record.stamp_ns,
                record.modality,
                record.rgb,
                record.thermal,
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
    sections = {
        'Timeline': timeline_svg(records),
        **_metrics(result, label_space),
        'Share of the pixels': _shares(records, label_space),
        'Frames': '<p>Every frame is in <code>frames.csv</code>.</p>\n'
        + picture(sheet, 'png', 'contact sheet'),
        'Run': figures(_facts(result)),
    }
    body = ''.join(f'<h2>{name}</h2>\n{content}\n' for name, content in sections.items())
    return page(title, _head(result) + body, STYLE)


def _head(result: Mapping[str, Any]) -> str:
    modalities = [f'{count} {MODALITIES[name]}' for name, count in result['modalities'].items()]
    line = ' · '.join([f'{result["pairs"]} pairs', *modalities])
    if result['metrics'] is None:
        return f'<p class="faint">{line}</p>\n<p>No ground truth, so there are no metrics.</p>\n'
    line += f' · {result["frames_with_truth"]} frames with ground truth'
    return f'<p class="faint">{line}</p>\n{key_figures(result["metrics"])}'


def _metrics(result: Mapping[str, Any], label_space: LabelSpace) -> dict[str, str]:
    """The sections of an evaluation's report, with a column a modality where there are several."""
    if result['metrics'] is None:
        return {}
    parts = result['metrics_by_modality']
    groups = {MODALITIES[name]: part for name, part in parts.items()} if len(parts) > 1 else {}
    return figure_sections({'all': result['metrics'], **groups}, label_space)


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    skew, duration = result['skew_ms'], result['predict_ms']
    skews = '–' if skew is None else f'{skew["median"]:.1f} / {skew["max"]:.1f} ms'
    return [
        *((f'messages on {topic}', str(count)) for topic, count in result['messages'].items()),
        *((f'dropped: {reason}', str(count)) for reason, count in result['dropped'].items()),
        *((f'stalled: {reason}', str(count)) for reason, count in result['stalls'].items()),
        ('skew of a pair, median / greatest', skews),
        ('prediction, median / p99', f'{duration["median"]:.1f} / {duration["p99"]:.1f} ms'),
        ('pairs a second', f'{result["pairs_per_s"]:.2f}'),
        ('pairs a second of the network alone', f'{result["network_pairs_per_s"]:.2f}'),
        ('time in which the network waited for a pair', percent(result['waiting_percent'])),
    ]


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
