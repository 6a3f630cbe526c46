"""Label spaces written by a user in YAML, and colours for classes that have none.

    name: yard                            # optional; the name of the file if it is left out
    background_id: 0                      # optional; null, or left out: no class is background
    names: [ground, person, {name: forklift, color: [240, 180, 40]}]

The id of a class is its place in the list. A file may also be the list alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sartm_model.errors import SartmError, raise_faults
from sartm_model.labels import LABEL_SPACES, UNKNOWN_COLOR, LabelSpace
from sartm_model.utils.text import first_line

Color = tuple[int, int, int]

KEYS = ('name', 'background_id', 'names')
YAML_SUFFIXES = ('.yaml', '.yml')


def open_label_space(name: str, folder: Path | None = None) -> LabelSpace:
    """Return a built-in label space, or read one from a YAML file.

    Args:
        name: one of `LABEL_SPACES`, or the path of a file that ends in .yaml or .yml.
        folder: what a relative path starts from; the working directory if omitted.

    Raises:
        SartmError: no such label space or file, or the file does not describe a label space.
    """
    faults: list[SartmError] = []
    space = read_label_space(name, folder or Path(), faults)
    raise_faults(faults)
    return space


def read_label_space(name: str, folder: Path, faults: list[SartmError]) -> LabelSpace:
    """Return a label space as `open_label_space` does, also from a file with faults.

    Args:
        name, folder: see `open_label_space`.
        faults: what is wrong with the file is appended here, as `parse_label_space` does.

    Raises:
        SartmError: no such label space or file, or no label space can be made of the file.
    """
    if name in LABEL_SPACES:
        return LABEL_SPACES[name]
    path = label_space_path(name, folder)
    if path is None:
        raise SartmError(
            f'label_space is {name!r}; expected one of {", ".join(LABEL_SPACES)}, or a .yaml file '
            'of classes'
        )
    return parse_label_space(read_yaml(path, faults), path.stem, str(path), faults)


def label_space_path(name: str, folder: Path) -> Path | None:
    """Return the file that the name of a label space means, None if it is no YAML file."""
    is_file = Path(name).suffix.lower() in YAML_SUFFIXES
    return folder / Path(name).expanduser() if is_file else None


def read_yaml(path: Path, faults: list[SartmError]) -> Any:
    """Read a YAML file into plain values; a key that occurs twice is appended to `faults`.

    Raises:
        SartmError: the file is missing or is not YAML.
    """
    try:
        loader = _Loader(path.read_text(encoding='utf-8-sig'))
        values = loader.get_single_data()
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a YAML file') from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split()) or first_line(error)
        raise SartmError(f'{path} cannot be read as YAML: {reason}') from error
    faults += [
        SartmError(f'{path} has the key {key!r} twice, again in line {line}; keep one of them')
        for key, line in loader.repeated
    ]
    return values


class _Loader(yaml.SafeLoader):
    """Reads plain values and notes each key that occurs twice; YAML keeps the last one silently.

    Attributes:
        repeated: (key, line of its second occurrence, counted from 1).
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[Any, int]] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value != '<<':
                key = self.construct_object(key_node)
                if key in seen:
                    self.repeated.append((key, key_node.start_mark.line + 1))
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_label_space(
    values: Any, default_name: str, source: str, faults: list[SartmError]
) -> LabelSpace:
    """Make a label space of what a YAML file holds.

    Args:
        values: a mapping with `names` and optionally `name` and `background_id`, or the list that
            `names` takes: class names and mappings of `name` and `color` in any mixture.
        default_name: the name of the label space where `values` has none.
        source: what the values were read from, for the error messages.
        faults: each unknown key and each value that cannot be used is appended here. The label
            space is made without it, so that the rest of a data set can be checked.

    Raises:
        SartmError: there is no list of class names, or none or too many are in it.
    """
    if isinstance(values, list):
        values = {'names': values}
    if not isinstance(values, Mapping) or not isinstance(values.get('names'), list):
        raise SartmError(f'{source} has no list of class names; expected names: [road, person]')

    def fault(text: str) -> None:
        faults.append(SartmError(f'{source} {text}'))

    for key in values:
        if key not in KEYS:
            fault(f'has the key {key!r}; expected {", ".join(KEYS)}')
    names: list[str] = []
    colors: list[Color | None] = []
    for place, entry in enumerate(values['names']):
        name, color = _parse_class(entry, fault)
        if name in names:
            fault(f'has the class {name} twice in names; expected each name once')
        if color is not None and color in colors:
            other = names[colors.index(color)]
            fault(
                f'has the same color {list(color)} for {other} and {name}; give each its own, or '
                'leave color out'
            )
        # An id is a place in names, so a class that cannot be used keeps its place.
        names.append(f'class {place}' if name is None or name in names else name)
        colors.append(color)
    background_id = values.get('background_id')
    if background_id is not None and (
        type(background_id) is not int or not 0 <= background_id < len(names)
    ):
        fault(
            f'has the background_id {background_id!r}; expected the place of a class in names, '
            f'counted from 0 (0 to {len(names) - 1}), or null'
        )
        background_id = None
    if background_id is not None and (0, 0, 0) not in colors:
        colors[background_id] = colors[background_id] or (0, 0, 0)
    try:
        return LabelSpace(
            str(values.get('name', default_name)), tuple(names), fill_colors(colors), background_id
        )
    except SartmError as error:
        raise SartmError(f'{source} has a label_space that cannot be: {error}') from error


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


def _parse_class(entry: Any, fault: Callable[[str], None]) -> tuple[str | None, Color | None]:
    """Return the name and the colour of an entry of `names`; None for one that cannot be used."""
    if isinstance(entry, Mapping):
        for key in entry:
            if key not in ('name', 'color'):
                fault(f'has a class with the key {key!r}; expected name and color')
        name, value = entry.get('name'), entry.get('color')
    else:
        name, value = entry, None
    if not isinstance(name, str) or not name:
        fault(
            f'has the class name {name!r}; expected a text. Put numbers and the words yes, no, on '
            'and off in quotes'
        )
        name = None
    color = None if value is None else parse_color(value)
    if value is not None and color is None:
        fault(
            f'has the color {value!r} of {name}; expected [red, green, blue] of 0 to 255, or '
            "'#rrggbb' in quotes"
        )
    return name, color
