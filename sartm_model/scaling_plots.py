"""The figures of `scaling` as one picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator
from PIL import Image

from sartm_model.evaluation.curves import BLUE, GREY, ORANGE, STYLE


def plots_png(result: Mapping[str, Any]) -> bytes:
    """The parts that `result`, as in `scaling.json`, holds, as the content of a PNG file.

    A part is one panel, rigs are two.
    """
    drawn = {'pixels': [_pixels], 'classes': [_classes], 'rigs': [_throughput, _latency]}
    panels = [(draw, result[part]) for part in drawn if part in result for draw in drawn[part]]
    rows, columns = (len(panels) + 1) // 2, min(len(panels), 2)
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
        drawing = Figure(figsize=(5 * columns, 3.6 * rows), layout=layout)
        places = drawing.subplots(rows, columns, squeeze=False).flat
        for axes, (draw, found) in zip(places, panels, strict=False):
            draw(axes, found)
        for axes in places[len(panels) :]:
            axes.axis('off')
        full, small = io.BytesIO(), io.BytesIO()
        drawing.savefig(full, format='png', dpi=120)
        # Lines and text have few colours: a palette takes a third of the bytes.
        Image.open(full).convert('RGB').quantize(64).save(small, format='png', optimize=True)
        return small.getvalue()


def _pixels(axes: Axes, found: Sequence[Mapping[str, Any]]) -> None:
    networks = dict.fromkeys(one['network'] for one in found)
    for color, network in zip(cycle((BLUE, ORANGE, GREY)), networks, strict=False):
        same = [one for one in found if one['network'] == network]
        megapixels = [math.prod(one['image']) / 1e6 for one in same]
        times_ms = [one['median_ms'] for one in same]
        exponent = same[0]['exponent']
        power = '' if exponent is None else f'\n~ pixels$^{{{exponent:.2f}}}$'
        _line(axes, megapixels, times_ms, color, f'{network}{power}')
    axes.set(title='Time of a pair', xlabel='megapixels', ylabel='median (ms)')
    axes.set(xscale='log', yscale='log')
    places = sorted({math.prod(one['image']) / 1e6 for one in found})
    axes.set_xticks(places, [f'{place:.2g}' for place in places])
    axes.xaxis.set_minor_locator(NullLocator())


def _classes(axes: Axes, found: Sequence[Mapping[str, Any]]) -> None:
    counts = [one['classes'] for one in found]
    _line(axes, counts, [one['confidence_ms'] for one in found], ORANGE, 'with\nconfidence')
    _line(axes, counts, [one['labels_ms'] for one in found], BLUE, 'labels\nalone')
    axes.set(title='Time of a pair', xlabel='classes', ylabel='median (ms)', xlim=0, ylim=0)


def _throughput(axes: Axes, found: Sequence[Mapping[str, Any]]) -> None:
    counts = [one['rigs'] for one in found]
    _line(axes, counts, [one['pairs_per_s'] for one in found], BLUE, 'all\ntogether')
    _line(axes, counts, [one['pairs_per_s'] / one['rigs'] for one in found], GREY, 'each')
    axes.set(title='Throughput', xlabel='rigs', ylabel='pairs a second', xticks=counts, ylim=0)


def _latency(axes: Axes, found: Sequence[Mapping[str, Any]]) -> None:
    counts = [one['rigs'] for one in found]
    _line(axes, counts, [max(one['p99_ms']) for one in found], ORANGE, 'p99')
    _line(axes, counts, [max(one['median_ms']) for one in found], BLUE, 'median')
    axes.set(
        title='Time of a pair, the slowest rig', xlabel='rigs', ylabel='ms', xticks=counts, ylim=0
    )


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], color: str, name: str) -> None:
    """A line with its name at its end."""
    axes.plot(x, y, color=color, marker='o', markersize=4)
    place: dict[str, Any] = {'xytext': (7, 0), 'textcoords': 'offset points', 'va': 'center'}
    axes.annotate(name, (x[-1], y[-1]), **place, color=color)
