"""Label spaces written by a user in YAML, and colours for classes that have none.

    name: yard                            # optional; the name of the file if it is left out
    background_id: 0                      # optional; null, or left out: no class is background
    names: [ground, person, {name: forklift, color: [240, 180, 40]}]

The id of a class is its place in the list. A file may also be the list alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sartm_model.errors import SartmError
from sartm_model.labels import LABEL_SPACES, UNKNOWN_COLOR, LabelSpace
from sartm_model.utils.text import first_line

Color = tuple[int, int, int]

KEYS = ('name', 'background_id', 'names')
YAML_SUFFIXES = ('.yaml', '.yml')


def open_label_space(name: str, folder: Path | None = None) -> LabelSpace:
    """Return a built-in label space, or read one from a YAML file.

    Args:
        name: mfnet, pst900, fmb, or the path of a file that ends in .yaml or .yml.
        folder: what a relative path starts from; the working directory if omitted.

    Raises:
        SartmError: no such label space or file, or the file does not describe a label space.
    """
    if name in LABEL_SPACES:
        return LABEL_SPACES[name]
    if Path(name).suffix.lower() not in YAML_SUFFIXES:
        raise SartmError(
            f'label_space is {name!r}; expected one of {", ".join(LABEL_SPACES)}, or a .yaml file '
            'of classes'
        )
    path = (folder or Path()) / Path(name).expanduser()
    return parse_label_space(read_yaml(path), path.stem, str(path))


def read_yaml(path: Path) -> Any:
    """Read a YAML file into plain values. Raises SartmError if it is missing or is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a YAML file') from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split()) or first_line(error)
        raise SartmError(f'{path} cannot be read as YAML: {reason}') from error


def parse_label_space(values: Any, default_name: str, source: str) -> LabelSpace:
    """Make a label space of what a YAML file holds.

    Args:
        values: a mapping with `names` and optionally `name` and `background_id`, or the list that
            `names` takes: class names and mappings of `name` and `color` in any mixture.
        default_name: the name of the label space where `values` has none.
        source: what the values were read from, for the error message.

    Raises:
        SartmError: a key is unknown or missing, or a value is of the wrong kind.
    """
    if isinstance(values, list):
        values = {'names': values}
    if not isinstance(values, Mapping) or not isinstance(values.get('names'), list):
        raise SartmError(f'{source} has no list of class names; expected names: [road, person]')
    if unknown := [key for key in values if key not in KEYS]:
        raise SartmError(f'{source} has the key {unknown[0]!r}; expected {", ".join(KEYS)}')
    background_id = values.get('background_id')
    if background_id is not None and type(background_id) is not int:
        raise SartmError(
            f'{source} has the background_id {background_id!r}; expected the place of a class in '
            'names, counted from 0, or null'
        )
    names, colors = [], []
    for entry in values['names']:
        name, color = _parse_class(entry, source)
        names.append(name)
        colors.append(color)
    if background_id is not None and 0 <= background_id < len(colors):
        colors[background_id] = colors[background_id] or (0, 0, 0)
    try:
        return LabelSpace(
            str(values.get('name', default_name)), tuple(names), fill_colors(colors), background_id
        )
    except SartmError as error:
        raise SartmError(f'{source}: {error}') from error


def parse_color(value: Any) -> Color | None:
    """Return the colour of '#rrggbb' or [red, green, blue], None if it is neither."""
    if isinstance(value, str) and re.fullmatch('#[0-9a-fA-F]{6}', value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    if (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        return value[0], value[1], value[2]
    return None


def fill_colors(colors: Sequence[Color | None]) -> tuple[Color, ...]:
    """Replace each None by a colour that is far from all the others, from black and from white.

    Of a grid of 8x8x8 colours, the one whose nearest colour in use is the farthest is taken, by the
    weighted RGB distance sqrt(2 dR^2 + 4 dG^2 + 3 dB^2). The result depends on the argument alone.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(0, 255, 8).round()] * 3), axis=-1).reshape(-1, 3)

    def distances(color: Sequence[int]) -> np.ndarray:
        return ((grid - color) ** 2 @ (2, 4, 3)) ** 0.5

    in_use = [(0, 0, 0), UNKNOWN_COLOR, *(color for color in colors if color is not None)]
    nearest = np.min([distances(color) for color in in_use], axis=0)
    filled = []
    for color in colors:
        if color is None:
            red, green, blue = grid[nearest.argmax()].astype(int).tolist()
            color = (red, green, blue)
            nearest = np.minimum(nearest, distances(color))
        filled.append(color)
    return tuple(filled)


def _parse_class(entry: Any, source: str) -> tuple[str, Color | None]:
    """Return the name and the colour, or None, of an entry of `names`."""
    if isinstance(entry, Mapping):
        if unknown := [key for key in entry if key not in ('name', 'color')]:
            raise SartmError(
                f'{source} has a class with the key {unknown[0]!r}; expected name and color'
            )
        name, value = entry.get('name'), entry.get('color')
    else:
        name, value = entry, None
    if not isinstance(name, str) or not name:
        raise SartmError(
            f'{source} has the class name {name!r}; expected a text. Put numbers and the words '
            'yes, no, on and off in quotes'
        )
    color = None if value is None else parse_color(value)
    if value is not None and color is None:
        raise SartmError(
            f'{source} has the color {value!r} of {name}; expected [red, green, blue] of 0 to 255, '
            "or '#rrggbb' in quotes"
        )
    return name, color
