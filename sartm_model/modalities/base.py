"""What the data sets, training, inference and the reports need to know of a kind of image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from sartm_model.errors import SartmError

SEVERITIES = (1, 2, 3, 4, 5)

EarlierImage = Callable[[int], np.ndarray]
"""n -> raw image of the same modality n frames earlier in the data set."""

Corruption = Callable[[np.ndarray, int, np.random.Generator, EarlierImage], np.ndarray]
"""(raw image, severity of `SEVERITIES`, random generator, earlier image) -> raw image."""


class Modality(ABC):
    """A kind of image that a network can be given, such as RGB or thermal.

    A subclass describes one kind of sensor. A raw image holds the counts of the sensor, `[H, W]` of
    one channel or `[H, W, C]` of several.

    Attributes:
        name: key of the images in `Frame.images`, in the YAML file of a data set, and in the
            configuration of a model; an identifier.
        title: name in messages and reports.
        channels: number of channels C.
        dtypes: the types that a raw image may have.
        folder_names: regular expression for the names of folders with such images, in lower case.
        corruptions: faults of the sensor by name, for `evaluation.corruptions`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    channels: ClassVar[int] = 1
    dtypes: ClassVar[tuple[str, ...]] = ('uint8',)
    folder_names: ClassVar[str]
    corruptions: ClassVar[Mapping[str, Corruption]] = {}

    @abstractmethod
    def read(self, path: Path) -> np.ndarray:
        """Read a raw image from a file.

        Raises SartmError, naming the file, if it is missing or holds another kind of image.
        """

    def check(self, image: np.ndarray) -> None:
        """Raise SartmError unless this is a raw image of the modality."""
        shape = '(h, w)' if self.channels == 1 else f'(H, W, {self.channels})'
        channels = 1 if image.ndim == 2 else image.shape[-1]
        dimensions = 2 if self.channels == 1 else 3
        is_ours = image.ndim == dimensions and channels == self.channels
        if not is_ours or str(image.dtype) not in self.dtypes:
            raise SartmError(
                f'{self.title} image is {image.dtype} {image.shape}; expected '
                f'{" or ".join(self.dtypes)} {shape}'
            )
        if image.size == 0:
            raise SartmError(f'{self.title} image is empty: {image.shape}')


def round_counts(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Round the values and clip them to the range of the integer type."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
