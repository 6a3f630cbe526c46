"""Draw the reliability curve and the mIoU of the frames as SVG, in the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sartm_model.evaluation.calibration import NUM_BINS
from sartm_model.evaluation.evaluate import condition_groups

INK = '#010203'  # replaced by the text colour of the page
BLUE, ORANGE, GREY = '#3c7dd7', '#d9822b', '#8e8e93'  # readable on light and dark pages
GROUP_COLORS = (ORANGE, BLUE, GREY, '#3f9e6b', '#a05cc5')

STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'sartm',  # the same ids in every run
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


def curves_svg(result: Mapping[str, Any]) -> str:
    """Draw the reliability curve and the mIoU of the frames.

    Args:
        result: what `evaluate` or `MetricAccumulator.compute` returned.

    Returns:
        an `<svg>` element.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout='constrained')
        reliability, frames = figure.subplots(1, 2, width_ratios=(2, 3))
        _plot_reliability(reliability, result)
        _plot_frames(frames, result)
        return as_svg(figure, 'curves')


def as_svg(figure: Figure, name: str) -> str:
    """Return a figure that was drawn with `STYLE` as an `<svg>` element.

    Its ids start with `name`, so that no two drawings of a page share one.
    """
    text = io.StringIO()
    no_metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(text, format='svg', transparent=True, metadata=no_metadata)
    svg = text.getvalue()
    svg = svg[svg.index('<svg') :].replace(INK, 'currentColor')
    return re.sub(r'( id="|href="#|url\(#)', rf'\1{name}-', svg)


def _plot_reliability(axes: Axes, result: Mapping[str, Any]) -> None:
    """Plot accuracy over confidence, and a bar for the share of the pixels in each bin."""
    bins = result['reliability']
    share = np.array(bins['pixels']) / max(sum(bins['pixels']), 1)
    centres = (np.arange(NUM_BINS) + 0.5) / NUM_BINS * 100
    width = 88 / NUM_BINS
    axes.bar(centres, 100 * share, width, color=GREY, alpha=0.35, label='share of the pixels')
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


def _plot_frames(axes: Axes, result: Mapping[str, Any]) -> None:
    """Plot the mIoU of each frame, sorted from the best to the worst."""
    groups = condition_groups(result) or {'all': result}
    for (name, group), color in zip(groups.items(), cycle(GROUP_COLORS), strict=False):
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
