"""One frame of a data set: aligned images by modality, labels, a name and a condition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Condition = Literal['day', 'night']

CONDITION_SEPARATOR = '+'
"""Stands between the conditions of a frame that has several."""


def join_conditions(conditions: Iterable[str]) -> str:
    """Return several conditions of a frame as one text, such as 'night+motionblur'."""
    return CONDITION_SEPARATOR.join(conditions)


def split_conditions(condition: str | None) -> list[str]:
    """Return each of the conditions of a frame; none for None."""
    return [] if condition is None else condition.split(CONDITION_SEPARATOR)


@dataclass(frozen=True)
class Frame:
    """The images of one moment, all of the same field of view.

    Attributes:
        name: identifies the frame in its data set; usually the stem of its files.
        images: the raw images that the frame has, by the names of their modalities (see
            `MODALITIES`), in whose order they are.
        labels: uint8 `[H, W]` of class ids, 255 where a pixel is not labelled; None where the data
            set has no labels.
        condition: a tag by which results are grouped, such as 'day' or 'night'; several are joined
            by `join_conditions`. None if the data set tells none.
    """

    name: str
    images: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    condition: str | None = None

    def select(self, modalities: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the images that the frame has of these modalities, in their order."""
        return {name: self.images[name] for name in modalities if name in self.images}

    @property
    def rgb(self) -> np.ndarray | None:
        """The RGB image, uint8 `[H, W, 3]`, or None."""
        return self.images.get('rgb')

    @property
    def thermal(self) -> np.ndarray | None:
        """The thermal image, uint8 or uint16 `[h, w]`, or None."""
        return self.images.get('thermal')
