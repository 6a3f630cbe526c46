"""Label spaces: the classes behind the ids of a label image, and their colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sartm_model.errors import SartmError

IGNORE_ID = 255
"""The id of a pixel without a class. Losses and metrics ignore it; on a topic it means unknown."""

MAX_CLASSES = 255
"""Largest number of classes: ids are uint8, and 255 is `IGNORE_ID`."""

UNKNOWN_COLOR = (255, 255, 255)


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set; the id of a class is its index in `classes`.

    Id 0 is the background (or 'unlabeled') class. It is predicted and scored like any other;
    `miou_foreground` excludes it, and an overlay leaves it transparent.

    Attributes:
        name: short name, e.g. 'mfnet'.
        classes: class names, at most 255.
        colors: one (red, green, blue) triple per class, 0 to 255.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise SartmError(
                f'label space {self.name!r} has {len(self.classes)} classes; 1 to {MAX_CLASSES} '
                f'are possible, because an id is one byte and {IGNORE_ID} means unknown'
            )
        if len(set(self.classes)) != len(self.classes):
            raise SartmError(f'label space {self.name!r} names a class twice: {self.classes}')
        if len(self.colors) != len(self.classes):
            raise SartmError(
                f'label space {self.name!r} has {len(self.classes)} classes but '
                f'{len(self.colors)} colours; expected one per class'
            )

    def __len__(self) -> int:
        return len(self.classes)

    def palette(self) -> np.ndarray:
        """Return the colour of each id as uint8 `[256, 3]`; ids without a class are white."""
        palette = np.full((256, 3), UNKNOWN_COLOR, dtype=np.uint8)
        palette[: len(self)] = np.asarray(self.colors, dtype=np.uint8)
        return palette

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and strings; `from_dict` is the inverse."""
        return {
            'name': self.name,
            'classes': list(self.classes),
            'colors': [list(color) for color in self.colors],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSpace:
        """Read what `to_dict` returned. Raises SartmError if a part is missing or malformed."""
        try:
            return cls(
                name=str(values['name']),
                classes=tuple(str(name) for name in values['classes']),
                colors=tuple((int(r), int(g), int(b)) for r, g, b in values['colors']),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SartmError(
                f'not a label space ({error!r}); expected name, classes and one [r, g, b] per class'
            ) from error


MFNET = LabelSpace(
    name='mfnet',
    classes=(
        'unlabeled',
        'car',
        'person',
        'bike',
        'curve',
        'car_stop',
        'guardrail',
        'color_cone',
        'bump',
    ),
    # Brighter than the data set's own colours, which are invisible over night images.
    colors=(
        (0, 0, 0),
        (160, 80, 255),
        (255, 210, 0),
        (0, 190, 255),
        (70, 100, 255),
        (170, 180, 60),
        (120, 200, 170),
        (255, 130, 140),
        (255, 110, 20),
    ),
)

PST900 = LabelSpace(
    name='pst900',
    classes=('background', 'fire_extinguisher', 'backpack', 'hand_drill', 'survivor'),
    colors=((0, 0, 0), (220, 30, 30), (40, 170, 60), (50, 110, 240), (240, 180, 40)),
)

FMB = LabelSpace(
    name='fmb',
    classes=(
        'background',
        'road',
        'sidewalk',
        'building',
        'traffic_light',
        'traffic_sign',
        'vegetation',
        'sky',
        'person',
        'car',
        'truck',
        'bus',
        'motorcycle',
        'bicycle',
        'pole',
    ),
    colors=(
        (0, 0, 0),
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (70, 130, 180),
        (220, 20, 60),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 0, 230),
        (119, 11, 32),
        (153, 153, 153),
    ),
)

LABEL_SPACES = {space.name: space for space in (MFNET, PST900, FMB)}
