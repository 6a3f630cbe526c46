"""Label images whose values are not class ids: raw ids of a labelling tool, or colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.data.label_space_file import parse_color
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.utils.image_io import read_label_colors, read_raw_ids, read_rgb
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
        first_channel: whether the values are in the first channel of an image with several.
        advice: what to do where a value is a fault.
    """

    ids: dict[int, int]
    of_colors: bool = False
    others: int | None = None
    first_channel: bool = False
    advice: str = (
        f'which the label_map lacks; add it with its class or with "{IGNORE}", or add '
        f'"{OTHERS}: {IGNORE}"'
    )

    def read(self, path: Path) -> np.ndarray:
        """Read a label image as uint8 `[H, W]` of class ids.

        Raises:
            SartmError: the file is not such an image, or has a value that is not in the map.
        """
        if self.of_colors:
            values = _as_numbers(read_label_colors(path))
        else:
            values = read_rgb(path, 'label')[..., 0] if self.first_channel else read_raw_ids(path)
        # As unsigned numbers, negative values are beyond the end of the table, too.
        ids = self._table.take(values.astype(np.uint32), mode='clip')
        if (ids < 0).any():
            wrong, counts = np.unique(values[ids < 0], return_counts=True)
            found = format_names(
                f'{self._describe(value)} ({count} pixels)'
                for value, count in zip(wrong.tolist(), counts.tolist(), strict=True)
            )
            raise SartmError(
                f'{path} has the {"colour" if self.of_colors else "raw id"} {found}, {self.advice}'
            )
        return ids.astype(np.uint8)

    @cached_property
    def _table(self) -> np.ndarray:
        """The id of each value, -1 for a fault; the last entry is for all values beyond."""
        size = (1 << 24 if self.of_colors else 1 << 16) + 1
        table = np.full(size, -1 if self.others is None else self.others, np.int16)
        table[list(self.ids)] = list(self.ids.values())
        return table

    def _describe(self, value: int) -> str:
        return f"'#{value:06x}'" if self.of_colors else str(value)


def parse_label_map(
    values: Any, space: LabelSpace, source: str, faults: list[SartmError]
) -> LabelMap | None:
    """Make a label map of the value of `label_map` in a YAML file.

    Args:
        values: 'ids' or None, if the label images hold class ids; 'colours', if they show the
            colours of the label space; or a mapping from raw ids, or from colours '#rrggbb', to
            names of classes. In place of a class, `ignore` means 'not labelled' and `background`
            the background of the label space. The key `others` tells what all other values become;
            without it they are a fault, except for the raw id 255, which is 'not labelled'.
        space: the classes.
        source: the file, for the error messages.
        faults: each entry that cannot be used is appended here. A value of an unknown class is
            'not labelled' in the map, so that it is no fault in the label images, too.

    Returns:
        The map, or None if the label images hold class ids.

    Raises:
        SartmError: no map can be made of the values.
    """
    if values in (None, 'ids'):
        return None
    if values in ('colours', 'colors'):
        return map_of_colors(space)
    if not isinstance(values, Mapping) or not values.keys() - {OTHERS}:
        raise SartmError(
            f'{source} has the label_map {values!r}; expected ids, colours, or a mapping such as '
            '{7: road, 11: person}'
        )
    if IGNORE in space.classes:
        faults.append(
            SartmError(
                f'{source} has a label_map and a class called {IGNORE}, which means "not labelled" '
                'in a label_map; rename the class'
            )
        )
    names = {IGNORE: IGNORE_ID}
    if space.background_id is not None:
        names['background'] = space.background_id
    names |= {name: id_ for id_, name in enumerate(space.classes)}
    ids: dict[int, int] = {}
    keys: set[tuple[int, bool]] = set()  # value, whether it is a colour
    others = None
    for key, name in values.items():
        if not isinstance(name, str) or name not in names:
            faults.append(
                SartmError(
                    f'{source} maps {key!r} to {name!r} in label_map; expected {IGNORE} or a class '
                    f'of {space.name}: {", ".join(space.classes)}'
                )
            )
        id_ = names.get(str(name), IGNORE_ID)
        if key == OTHERS:
            others = id_
            continue
        try:
            parsed = _parse_key(key, source)
        except SartmError as error:
            faults.append(error)
            continue
        if parsed in keys:
            faults.append(
                SartmError(f'{source} has {key!r} twice in label_map; expected each value once')
            )
        keys.add(parsed)
        ids[parsed[0]] = id_
    kinds = {is_color for _, is_color in keys}
    if len(kinds) > 1:
        raise SartmError(f'{source} has ids and colours in label_map; expected one kind of keys')
    of_colors = kinds == {True}
    if not of_colors:
        ids.setdefault(IGNORE_ID, IGNORE_ID)
    return LabelMap(ids, of_colors, others)


def map_of_colors(space: LabelSpace) -> LabelMap:
    """Return the map of label images that show the colours of a label space."""
    colors = _as_numbers(np.array(space.colors)).tolist()
    return LabelMap({color: id_ for id_, color in enumerate(colors)}, of_colors=True)


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


def _as_numbers(colors: np.ndarray) -> np.ndarray:
    """Return 65536 red + 256 green + blue of colours `[..., 3]`, int32 `[...]`."""
    return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def ids_plus_one(space: LabelSpace) -> dict[int, int]:
    """Return `LabelMap.ids` of images that hold ids plus 1, where 0 and 255 are not labelled."""
    return {0: IGNORE_ID, IGNORE_ID: IGNORE_ID, **{id_ + 1: id_ for id_ in range(len(space))}}
