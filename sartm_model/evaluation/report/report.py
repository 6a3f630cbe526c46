"""The report of an evaluation: one HTML page that needs nothing beside it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Frame
from sartm_model.evaluation.boundary import TOLERANCE
from sartm_model.evaluation.evaluate import FramePrediction
from sartm_model.evaluation.metrics import MEANS
from sartm_model.evaluation.report.curves import curves_svg
from sartm_model.evaluation.report.page import class_name, figures, page, percent, shade
from sartm_model.evaluation.report.panels import best_and_worst_frames
from sartm_model.labels import LabelSpace
from sartm_model.utils.files import write_file

STYLE = """
.key { display: flex; flex-wrap: wrap; gap: 1em 3em; margin: 1.5em 0; }
.key div { line-height: 1.25; } .key b { display: block; font-size: 1.9em; font-weight: 600; }
.wide { overflow-x: auto; } tbody th { font-weight: normal; }
thead th { border-bottom: 1px solid var(--line); vertical-align: bottom; }
.confusion td, .confusion thead th { padding: .3em .5em; text-align: right; min-width: 2.4em; }
.confusion thead th { border: 0; font-weight: normal; }
.confusion span.name { writing-mode: vertical-rl; transform: rotate(180deg); }
.frame { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; margin: .2em 0 1.4em; }
.frame figure { margin: 0; } .frame img { width: 100%; display: block; }
@media (max-width: 700px) { .frame { grid-template-columns: repeat(2, 1fr); } }
.frame figcaption { font-size: .85em; color: var(--faint); }
.none { aspect-ratio: 4 / 3; border: 1px dashed var(--line); display: grid; place-items: center; }
.legend > span { white-space: nowrap; margin-right: 1.4em; display: inline-block; }
.side { display: flex; flex-wrap: wrap; align-items: start; gap: 0 5em; }
svg { max-width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif !important; }
"""

NOTES = f"""<p class="faint">IoU, boundary F1 and the confusion matrix count the pixels of all
frames together. A dash: the class is neither in the truth nor predicted. Boundary F1 holds outlines
against each other within {100 * TOLERANCE:g} % of the image's diagonal. Confidence is the
probability of the predicted class; the expected calibration error is the mean distance between
confidence and accuracy.</p>"""


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    dataset: PairDataset,
    predict: Callable[[Frame], FramePrediction],
) -> None:
    """Write `index.html` to `folder`, replacing an earlier one.

    Args:
        folder: made where it is missing.
        result: what `evaluate` returned, and the run's `settings`.
        dataset: what was evaluated; the best and the worst frames are read again.
        predict: what was evaluated; it predicts those frames again.
    """
    settings, space = result['settings'], dataset.label_space
    groups = {'all': result} | {n: result[n] for n in ('day', 'night') if n in result}
    checkpoint = Path(settings['checkpoint']).name
    title = f'Evaluation of {checkpoint} on {settings["dataset"]} {settings["split"]}'
    sections = {
        **figure_sections(groups, space),
        **best_and_worst_frames(result, dataset, predict),
        'Run': f'<div class="side">{figures(_facts(settings))}{figures(_versions())}</div>',
    }
    body = ''.join(f'<h2>{name}</h2>\n{content}\n' for name, content in sections.items())
    write_file(folder / 'index.html', page(title, _head(result) + body, STYLE))


def figure_sections(groups: Mapping[str, Mapping[str, Any]], space: LabelSpace) -> dict[str, str]:
    """Means, classes, confusion and curves by their headings, for a page with `STYLE`.

    Args:
        groups: figures of a `MetricAccumulator` by the name of their column; one is called 'all'.
        space: names and colours of the ids.
    """
    return {
        'Means': _means(groups),
        'Classes': _classes(groups, space),
        'Confusion': _confusion(groups['all'], space),
        'Curves': curves_svg(groups['all']),
    }


def key_figures(result: Mapping[str, Any]) -> str:
    """The figures one looks for first, in large."""
    key = {
        'mIoU': result['miou'],
        'pixel accuracy': result['pixel_accuracy'],
        'boundary F1': result['boundary_f1'],
        'calibration error': result['ece'],
    }
    cards = [f'<div><b>{percent(value)}</b>{name}</div>' for name, value in key.items()]
    return f'<div class="key">{"".join(cards)}</div>\n'


def _head(result: Mapping[str, Any]) -> str:
    """In what condition the network was, and the figures one looks for first."""
    settings = result['settings']
    words = [
        {'both': 'RGB and thermal', 'rgb': 'RGB alone'}.get(settings['modality'], 'thermal alone'),
        {'mean': 'mean of both heads'}.get(settings['head'], f'{settings["head"]} head alone'),
        'no corruption' if settings['corruption'] is None
        else f'{settings["corruption"]}, severity {settings["severity"]}',
        f'{result["frames"]} frames',
    ]  # fmt: skip
    line = escape(' · '.join(words).replace('_', ' '))
    return f'<p class="faint">{line}</p>\n{key_figures(result)}'


def _means(groups: Mapping[str, Mapping[str, Any]]) -> str:
    rows = MEANS | {
        'boundary_f1': 'boundary F1, classes present, without background',
        'ece': 'expected calibration error',
    }
    lines = [
        f'<tr><td>{text}</td>{"".join(_figure(group[key]) for group in groups.values())}</tr>'
        for key, text in rows.items()
    ]
    frames = ''.join(f'<td class="figure">{group["frames"]}</td>' for group in groups.values())
    lines.append(f'<tr><td>frames</td>{frames}</tr>')
    return _table(f'<tr><th></th>{_headings(groups)}</tr>', lines) + NOTES


def _classes(groups: Mapping[str, Mapping[str, Any]], space: LabelSpace) -> str:
    """IoU and boundary F1 of each class, in all frames, by day and by night."""
    pixels = _true_pixels(groups['all'])
    lines = []
    for label, (name, color) in enumerate(zip(space.classes, space.colors, strict=True)):
        iou = groups['all']['per_class_iou'][name]
        lines.append(
            f'<tr><th>{class_name(name, color)}</th>'
            + _figure(100 * pixels[label] / max(pixels.sum(), 1))
            + ''.join(_figure(group['per_class_iou'][name]) for group in groups.values())
            + f'<td><span class="bar" style="width: {1.6 * (iou or 0):.0f}px; '
            f'background: {shade(color)}"></span></td>'
            + ''.join(_figure(group['per_class_boundary_f1'][name]) for group in groups.values())
            + '</tr>'
        )
    over = f'<th colspan="{len(groups) + 1}">IoU</th><th colspan="{len(groups)}">boundary F1</th>'
    head = (
        f'<tr><th></th><th></th>{over}</tr>\n<tr><th>class</th><th class="figure">share of pixels'
        f'</th>{_headings(groups)}<th></th>{_headings(groups)}</tr>'
    )
    return f'<div class="wide">{_table(head, lines)}</div>'


def _confusion(result: Mapping[str, Any], space: LabelSpace) -> str:
    """A heat map as a table: each row in percent of the labelled pixels of its class."""
    counts = np.array(result['confusion'])
    columns = list(space.classes)
    if 'unknown' in result:
        counts, columns = np.column_stack((counts, result['unknown'])), [*columns, 'unknown']
    lines = []
    for name, color, row in zip(space.classes, space.colors, counts.tolist(), strict=True):
        cells = ''.join(_cell(count, sum(row)) for count in row)
        lines.append(f'<tr><th>{class_name(name, color)}</th>{cells}</tr>')
    names = ''.join(
        f'<th><span class="name">{escape(name.replace("_", " "))}</span></th>' for name in columns
    )
    return (
        '<p class="faint">Rows are the truth, columns the prediction, in percent of the row; '
        'dashes where no pixel is of the class.</p>\n'
        f'<div class="wide confusion">{_table(f"<tr><th></th>{names}</tr>", lines)}</div>'
    )


def _cell(count: int, total: int) -> str:
    if not count:
        return f'<td class="faint">{"·" if total else "–"}</td>'
    part = count / total
    ink = '; color: white' if part > 0.55 else ''
    style = f'background: rgb(var(--heat) / {part:.2f}){ink}'
    return f'<td style="{style}" title="{count} pixels">{100 * part:.1f}</td>'


def _facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    words = {
        'corruption': settings['corruption'] or 'none',
        'severity': '–' if settings['severity'] is None else str(settings['severity']),
        'flip': 'yes' if settings['flip'] else 'no',
        'scales': ' '.join(f'{scale:g}' for scale in settings['scales']),
    }
    facts = [(name, words.get(name, str(value))) for name, value in settings.items()]
    return [*facts, ('written', f'{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}')]


def _versions() -> list[tuple[str, str]]:
    """What ran: of each package its version as installed."""
    found = [('Python', platform.python_version())]
    for package in ('sartm_ros', 'torch', 'sam2', 'numpy', 'matplotlib'):
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            found.append((package, 'not installed'))
    return [*found, ('OpenCV', cv2.__version__), ('system', platform.platform(terse=True))]


def _true_pixels(figures: Mapping[str, Any]) -> np.ndarray:
    """The labelled pixels of each class, int64 `[K]`."""
    return np.array(figures['confusion']).sum(axis=1) + np.array(figures.get('unknown', 0))


def _headings(groups: Mapping[str, Any]) -> str:
    return ''.join(f'<th class="figure">{name}</th>' for name in groups)


def _figure(value: float | None) -> str:
    return f'<td class="figure">{percent(value)}</td>'


def _table(head: str, lines: Sequence[str]) -> str:
    return f'<table><thead>{head}</thead><tbody>\n' + '\n'.join(lines) + '\n</tbody></table>\n'
