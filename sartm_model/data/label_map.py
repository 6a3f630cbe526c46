"""Label images whose values are not class ids: raw ids of a labelling tool, or colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.data.label_space_file import parse_color
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.utils.image_io import read_label_colors, read_raw_ids
from sartm_model.utils.text import format_names

IGNORE = 'ignore'
"""What a `label_map` writes in place of a class for 'not labelled'."""

OTHERS = 'others'
"""The key of a `label_map` for all values that it does not name."""


@dataclass(frozen=True)
class LabelMap:
    """Converts the values in label images to class ids.

    Attributes:
        ids: value -> class id, or 255 for 'not labelled'. A colour is the value
            65536 red + 256 green + blue.
        of_colors: whether the values are colours.
        others: the id of every other value; None if another value is a fault.
    """

    ids: dict[int, int]
    of_colors: bool = False
    others: int | None = None

    def read(self, path: Path) -> np.ndarray:
        """Read a label image as uint8 `[H, W]` of class ids.

        Raises:
            SartmError: the file is not such an image, or has a value that is not in the map.
        """
        values = _as_numbers(read_label_colors(path)) if self.of_colors else read_raw_ids(path)
        known = np.array(sorted(self.ids))
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        is_known = known[places] == values
        if self.others is None and not is_known.all():
            wrong, counts = np.unique(values[~is_known], return_counts=True)
            found = format_names(
                f'{self._describe(value)} ({count} pixels)'
                for value, count in zip(wrong.tolist(), counts.tolist(), strict=True)
            )
            raise SartmError(
                f'{path} has the {"colour" if self.of_colors else "raw id"} {found}, which the '
                f'label_map lacks; add it with its class or with "{IGNORE}", or add '
                f'"{OTHERS}: {IGNORE}"'
            )
        ids = np.array([self.ids[value] for value in known.tolist()])[places]
        return np.where(is_known, ids, self.others or 0).astype(np.uint8)

    def _describe(self, value: int) -> str:
        return f"'#{value:06x}'" if self.of_colors else str(value)


def parse_label_map(values: Any, space: LabelSpace, source: str) -> LabelMap | None:
    """Make a label map of the value of `label_map` in a YAML file.

    Args:
        values: 'ids' or None, if the label images hold class ids; 'colours', if they show the
            colours of the label space; or a mapping from raw ids, or from colours '#rrggbb', to
            names of classes. In place of a class, `ignore` means 'not labelled' and `background`
            the background of the label space. The key `others` tells what all other values become;
            without it they are a fault, except for the raw id 255, which is 'not labelled'.
        space: the classes.
        source: the file, for the error message.

    Returns:
        The map, or None if the label images hold class ids.

    Raises:
        SartmError: a key or a name is unknown, or two classes have one colour.
    """
    if values in (None, 'ids'):
        return None
    if values in ('colours', 'colors'):
        return LabelMap(_ids_of_colors(space, source), of_colors=True)
    if not isinstance(values, Mapping) or not values.keys() - {OTHERS}:
        raise SartmError(
            f'{source} has the label_map {values!r}; expected ids, colours, or a mapping such as '
            '{7: road, 11: person}'
        )
    names = {IGNORE: IGNORE_ID}
    if space.background_id is not None:
        names['background'] = space.background_id
    names |= {name: id_ for id_, name in enumerate(space.classes)}
    ids: dict[int, int] = {}
    keys_are_colors = set()
    others = None
    for key, name in values.items():
        if name not in names:
            raise SartmError(
                f'{source} maps {key!r} to {name!r} in label_map; expected {IGNORE} or a class of '
                f'{space.name}: {", ".join(space.classes)}'
            )
        if key == OTHERS:
            others = names[name]
            continue
        value, is_color = _parse_key(key, source)
        keys_are_colors.add(is_color)
        if len(keys_are_colors) > 1:
            raise SartmError(
                f'{source} has ids and colours in label_map; expected one kind of keys'
            )
        if value in ids:
            raise SartmError(f'{source} has {key!r} twice in label_map; expected each value once')
        ids[value] = names[name]
    of_colors = keys_are_colors == {True}
    if not of_colors:
        ids.setdefault(IGNORE_ID, IGNORE_ID)
    return LabelMap(ids, of_colors, others)


def _parse_key(key: Any, source: str) -> tuple[int, bool]:
    """Return the value of a key of `label_map`, and whether it is a colour."""
    if type(key) is int and 0 <= key <= np.iinfo(np.uint16).max:
        return key, False
    color = parse_color(key) if isinstance(key, str) else None
    if color is None:
        raise SartmError(
            f'{source} has the key {key!r} in label_map; expected a raw id of 0 to 65535, a colour '
            f"'#rrggbb' in quotes, or {OTHERS}"
        )
    return int(_as_numbers(np.array(color))), True


def _ids_of_colors(space: LabelSpace, source: str) -> dict[int, int]:
    """Return value of the colour -> id of each class."""
    ids: dict[int, int] = {}
    for id_, color in enumerate(space.colors):
        first = ids.setdefault(int(_as_numbers(np.array(color))), id_)
        if first != id_:
            raise SartmError(
                f'{source} reads labels by colour, but {space.classes[first]} and '
                f'{space.classes[id_]} have the same colour {list(color)}; give each its own'
            )
    return ids


def _as_numbers(colors: np.ndarray) -> np.ndarray:
    """Return 65536 red + 256 green + blue of colours `[..., 3]`, int32 `[...]`."""
    return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
