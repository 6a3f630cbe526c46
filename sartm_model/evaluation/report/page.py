"""Parts of an HTML page that needs nothing beside it and reads well by day and by night."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fafaf8; --faint: #66666b;
        --line: #dddcd8; --heat: 40 100 190; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e3; --paper: #17181a; --faint: #a0a0a4; --line: #37383c;
          --heat: 60 125 215; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1340px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2.2em; }
table { border-collapse: collapse; } td, th { padding: .2em 1.2em .2em 0; text-align: left; }
th { font-weight: 600; } td.figure, th.figure { text-align: right; }
td.figure { font-variant-numeric: tabular-nums; } td.figure, tbody th { white-space: nowrap; }
.bar { display: inline-block; height: .8em; vertical-align: middle;
       box-shadow: inset 0 0 0 1px rgb(128 128 128 / .45); }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .5em;
          border: 1px solid #888; vertical-align: middle; }
.faint { color: var(--faint); }
img { max-width: 100%; }
"""


def page(title: str, body: str, style: str = '') -> str:
    """The page; `body` is HTML that begins under the heading, `style` is added to `STYLE`."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>\n'
        f'<h1>{escape(title)}</h1>\n{body}\n</body></html>\n'
    )


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """A table of names and what stands for each, aligned to the right."""
    lines = [
        f'<tr><td>{escape(name)}</td><td class="figure">{escape(value)}</td></tr>'
        for name, value in pairs
    ]
    return '<table>\n' + '\n'.join(lines) + '\n</table>'


def picture(content: bytes, kind: str, alt: str) -> str:
    """An image that is part of the page; `kind` is 'png', 'jpeg', ..."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def class_name(name: str, color: Sequence[int]) -> str:
    """A class's colour and its name."""
    return (
        f'<span class="swatch" style="background: {shade(color)}"></span>'
        f'{escape(name.replace("_", " "))}'
    )


def percent(value: float | None) -> str:
    """A figure in percent, or a dash where there is none."""
    return '–' if value is None else f'{value:.1f} %'


def shade(color: Sequence[int]) -> str:
    """(red, green, blue) of 0 to 255 for a style."""
    return 'rgb({}, {}, {})'.format(*color)
