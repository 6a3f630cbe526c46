"""One frame of a data set: an aligned RGB-thermal pair, its labels, its name and its condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Condition = Literal['day', 'night']


@dataclass(frozen=True)
class Frame:
    """One aligned RGB-thermal pair.

    Attributes:
        name: identifies the frame in its data set; usually the stem of its files.
        rgb: uint8 `[H, W, 3]`, or None where the data set has no RGB images.
        thermal: uint8 or uint16 `[H, W]`, or None where the data set has no thermal images.
        labels: uint8 `[H, W]` of class ids, 255 where a pixel is not labelled; None where the data
            set has no labels.
        condition: a tag by which results are grouped, such as 'day' or 'night'; None if the data
            set tells none.
    """

    name: str
    rgb: np.ndarray | None
    thermal: np.ndarray | None
    labels: np.ndarray | None = None
    condition: str | None = None
