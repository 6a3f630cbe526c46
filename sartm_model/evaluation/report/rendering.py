"""Render the HTML pages of the reports: one file each that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(template: str, context: Mapping[str, Any], package: str = __package__) -> str:
    """Render a page. Everything in `context` is escaped, unless it is `markupsafe.Markup`.

    Args:
        template: name of a file in the folder `templates` of `package`.
        context: the values that the template uses; `title` is the heading of every page.
        package: the package whose template it is. It may extend and import the templates here.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name) for name in dict.fromkeys((package, __package__))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=format_percent, rgb=css_color)
    return environment.get_template(template).render(context)


def data_uri(image: bytes, kind: str) -> str:
    """Return the content of an image file as an address that holds it; `kind` as in MIME types."""
    return f'data:image/{kind};base64,{base64.b64encode(image).decode()}'


def format_percent(value: float | None) -> str:
    """Format a percentage, or a dash in place of None."""
    return '–' if value is None else f'{value:.1f} %'


def css_color(color: Sequence[int]) -> str:
    """Format (red, green, blue) of 0 to 255 for CSS."""
    return 'rgb({}, {}, {})'.format(*color)
