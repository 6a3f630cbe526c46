"""What a data set is here: a sequence of named, aligned RGB-thermal frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sartm_model.labels import LabelSpace

Condition = Literal['day', 'night']


@dataclass(frozen=True)
class Frame:
    """One aligned RGB-thermal pair.

    Attributes:
        name: the stem of its files; unique in its data set.
        rgb: uint8 `[H, W, 3]`, or None where the data has no RGB.
        thermal: uint8 or uint16 `[H, W]`, or None where the data has no thermal.
        labels: uint8 `[H, W]` of class ids with 255 for 'not labelled', or None.
        condition: 'day' or 'night' where the data tells.
    """

    name: str
    rgb: np.ndarray | None
    thermal: np.ndarray | None
    labels: np.ndarray | None = None
    condition: Condition | None = None


class PairDataset(ABC):
    """A finite, indexable set of frames; a frame is read or made when it is asked for."""

    label_space: LabelSpace
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Frame:
        """The frame at `index`. Raises SartmError naming the file where one cannot be used."""

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))
