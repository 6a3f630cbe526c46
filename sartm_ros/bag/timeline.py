"""Draw the timeline of a replay as SVG, in the colours of the page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sartm_model.evaluation.report.curves import BLUE, GREY, ORANGE, STYLE, as_svg
from sartm_ros.bag.frame_record import FrameRecord
from sartm_ros.settings.cameras import selections

COLORS = (BLUE, ORANGE, GREY)
"""Of pairs, of RGB alone, and of the second camera alone."""


def timeline_svg(records: Sequence[FrameRecord]) -> str:
    """Draw latency, skew, mIoU (if known) and modality over the stamps, as an `<svg>` element.

    Each pair is a point in the colour of its modality.
    """
    curves: dict[str, list[float | None]] = {
        'prediction (ms)': [record.predict_ms for record in records],
        'skew (ms)': [record.skew_ms for record in records],
        'mIoU (%)': [record.miou for record in records],
    }
    if all(value is None for value in curves['mIoU (%)']):
        del curves['mIoU (%)']
    first_ns = min(record.stamp_ns for record in records)
    seconds = [(record.stamp_ns - first_ns) / 1e9 for record in records]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.7 * len(curves) + 1.4), layout='constrained')
        heights = [2.0] * len(curves) + [1.0]
        *axes, last = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for one, (name, values) in zip(axes, curves.items(), strict=True):
            _points(one, seconds, values, records)
            one.set_ylabel(name)
        axes[0].set_ylim(bottom=0)
        descriptions = {record.modality: record.description for record in records}
        names = [name for name in _selections(records) if name in descriptions]
        _points(last, seconds, [names.index(record.modality) for record in records], records)
        last.set_yticks(range(len(names)), [descriptions[name] for name in names])
        last.set_ylim(len(names) - 0.5, -0.5)
        last.set_xlabel('stamp, seconds since the first pair')
        return as_svg(figure, 'timeline')


def _points(
    axes: Axes,
    seconds: Sequence[float],
    values: Sequence[float | None],
    records: Sequence[FrameRecord],
) -> None:
    for name, color in zip(_selections(records), COLORS, strict=True):
        chosen = [
            (x, y)
            for x, y, record in zip(seconds, values, records, strict=True)
            if record.modality == name and y is not None
        ]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), '.', color=color, markersize=5)


def _selections(records: Sequence[FrameRecord]) -> tuple[str, str, str]:
    _, x_modality = records[0].states
    return selections(x_modality)
