"""The curves of an evaluation as one SVG drawing, in the colours of the page it is put into."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sartm_model.evaluation.calibration import BINS

INK = '#010203'  # drawn with, and then replaced by the colour of the page's text
BLUE, ORANGE, GREY = '#3c7dd7', '#d9822b', '#8e8e93'  # seen on light and on dark paper

STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'sartm',  # the same drawing of the same figures
    'font.family': 'sans-serif',
    'font.size': 11,
    'text.color': INK,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 11,
    'axes.titlepad': 10,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
}


def curves_svg(figures: Mapping[str, Any]) -> str:
    """Reliability and the frames' mIoU, of what `evaluate` gives, as an `<svg>` element."""
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(11, 4), layout='constrained')
        reliability, frames = drawing.subplots(1, 2, width_ratios=(2, 3))
        _reliability(reliability, figures)
        _frames(frames, figures)
        return as_svg(drawing)


def as_svg(drawing: Figure) -> str:
    """The drawing, made with `STYLE`, as an `<svg>` element in the colours of its page."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    drawing.savefig(text, format='svg', transparent=True, metadata=no_metadata)
    svg = text.getvalue()
    return svg[svg.index('<svg') :].replace(INK, 'currentColor')


def _reliability(axes: Axes, figures: Mapping[str, Any]) -> None:
    """Accuracy over confidence; bars of the pixels' share beneath."""
    bins = figures['reliability']
    share = np.array(bins['pixels']) / max(sum(bins['pixels']), 1)
    centres = (np.arange(BINS) + 0.5) / BINS * 100
    axes.bar(centres, 100 * share, 88 / BINS, color=GREY, alpha=0.35, label='share of the pixels')
    axes.plot((0, 100), (0, 100), color=INK, alpha=0.4, linewidth=1, linestyle='--')
    points = [
        pair for pair in zip(bins['confidence'], bins['accuracy'], strict=True) if None not in pair
    ]
    if points:
        axes.plot(
            *zip(*points, strict=True), color=BLUE, marker='o', markersize=4, label='accuracy'
        )
    axes.set(
        title='Reliability', xlabel='confidence (%)', ylabel='accuracy (%)',
        xlim=(0, 100), ylim=(0, 103),
    )  # fmt: skip
    axes.legend(loc='upper left')


def _frames(axes: Axes, figures: Mapping[str, Any]) -> None:
    """The mIoU of each frame, from the best to the worst."""
    groups = [(name, figures[name]) for name in ('day', 'night') if name in figures]
    for (name, group), color in zip(groups or [('all', figures)], (ORANGE, BLUE), strict=False):
        miou = sorted((v for v in group['frame_miou'].values() if v is not None), reverse=True)
        if not miou:
            continue
        place = (np.arange(len(miou)) + 0.5) / len(miou) * 100
        marker = '.' if len(miou) <= 200 else ''
        label = f'{name}, {len(miou)} frames, median {np.median(miou):.1f} %'
        axes.plot(place, miou, color=color, marker=marker, linewidth=1.5, label=label)
    axes.set(
        title='mIoU of each frame, over the classes present in it', xlabel='frames, sorted (%)',
        ylabel='mIoU (%)', xlim=(0, 100), ylim=(0, 103),
    )  # fmt: skip
    if axes.lines:
        axes.legend(loc='upper right')
