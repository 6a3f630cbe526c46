"""Label spaces: the classes behind the ids of a label image, and their colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sartm_model.errors import SartmError

IGNORE_ID = 255
"""The id of a pixel without a class. Losses and metrics ignore it; on a topic it means unknown."""

MAX_CLASSES = 255
"""Largest number of classes: ids are uint8, and 255 is `IGNORE_ID`."""

UNKNOWN_COLOR = (255, 255, 255)


class View(NamedTuple):
    """The classes of a data set among those of a label space that unifies several.

    Attributes:
        space: the data set's own label space.
        ids: of each of its classes the id in the unified one; no two are equal.
    """

    space: LabelSpace
    ids: tuple[int, ...]


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set; the id of a class is its index in `classes`.

    A background class is predicted and scored like any other. `miou_foreground` and `boundary_f1`
    leave it out, an overlay shows it transparent, and it is not drawn as an object in augmentation.

    Attributes:
        name: short name, e.g. 'mfnet'.
        classes: class names, at most 255.
        colors: one (red, green, blue) triple per class, 0 to 255.
        background_id: the id of the background (or 'unlabeled') class; None if there is none.
        views: the label spaces that this one unifies; empty for an ordinary one.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    background_id: int | None = None
    views: tuple[View, ...] = ()

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
        if any(not 0 <= value <= 255 for color in self.colors for value in color):
            raise SartmError(f'label space {self.name!r} has a colour outside 0 to 255')
        if self.background_id is not None and not 0 <= self.background_id < len(self.classes):
            raise SartmError(
                f'label space {self.name!r} has the background_id {self.background_id}; expected '
                f'an id of its classes, 0 to {len(self.classes) - 1}, or null for none'
            )
        for space, ids in self.views:
            if len(ids) != len(space) or not set(ids) <= set(range(len(self.classes))):
                raise SartmError(
                    f'label space {self.name!r} has a view of {space.name!r} with the ids {ids}; '
                    f'expected {len(space)}, each an id of its classes'
                )

    def __len__(self) -> int:
        return len(self.classes)

    def ids_of(self, other: LabelSpace) -> tuple[int, ...] | None:
        """Return the id here of each class of another label space.

        None unless that has the same classes, or is one of those that this one unifies.
        """
        if other.classes == self.classes:
            return tuple(range(len(self)))
        found = (view.ids for view in self.views if view.space.classes == other.classes)
        return next(found, None)

    def palette(self) -> np.ndarray:
        """Return the colour of each id as uint8 `[256, 3]`; ids without a class are white."""
        palette = np.full((256, 3), UNKNOWN_COLOR, dtype=np.uint8)
        palette[: len(self)] = np.asarray(self.colors, dtype=np.uint8)
        return palette

    def is_object(self) -> np.ndarray:
        """Return for each class whether it is another than the background, bool `[K]`."""
        return np.arange(len(self)) != (-1 if self.background_id is None else self.background_id)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and strings; `from_dict` is the inverse."""
        views = [{'space': space.to_dict(), 'ids': list(ids)} for space, ids in self.views]
        return {
            'name': self.name,
            'classes': list(self.classes),
            'colors': [list(color) for color in self.colors],
            'background_id': self.background_id,
            **({'views': views} if views else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSpace:
        """Read what `to_dict` returned. Raises SartmError if a part is missing or malformed.

        Files written before `background_id` existed lack it; there, it was always 0.
        """
        try:
            background_id = values.get('background_id', 0)
            return cls(
                name=str(values['name']),
                classes=tuple(str(name) for name in values['classes']),
                colors=tuple((int(r), int(g), int(b)) for r, g, b in values['colors']),
                background_id=None if background_id is None else int(background_id),
                views=tuple(
                    View(cls.from_dict(view['space']), tuple(int(id_) for id_ in view['ids']))
                    for view in values.get('views', ())
                ),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SartmError(
                f'not a label space ({error!r}); expected name, classes and one [r, g, b] per class'
            ) from error
