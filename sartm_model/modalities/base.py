"""What data sets, training, inference and reports need to know of a kind of image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from sartm_model.config import DataConfig
from sartm_model.errors import SartmError
from sartm_model.utils.image_io import SUFFIXES
from sartm_model.utils.visualization import to_grey

SEVERITIES = (1, 2, 3, 4, 5)

EarlierImage = Callable[[int], np.ndarray]
"""n -> raw image of the same modality n frames earlier in the data set."""

Corruption = Callable[[np.ndarray, int, np.random.Generator, EarlierImage], np.ndarray]
"""(raw image, severity of `SEVERITIES`, random generator, earlier image) -> raw image."""


class Modality(ABC):
    """A kind of image that a network can be given, such as RGB or thermal.

    A subclass describes one kind of sensor: its attributes, how a file is read, and what differs
    from the methods here. An image has the shape `[H, W]` if it has one channel, and `[H, W, C]` if
    it has several. A raw image holds the counts of the sensor. A scaled image has the same shape
    and holds the numbers that `mean` and `std` refer to.

    Attributes:
        name: key of the images in `Frame.images`, in the YAML file of a data set, and in the
            configuration of a model; an identifier.
        title: name in messages and reports.
        channels: number of channels C.
        dtypes: the types that a raw image may have.
        mean, std: of each channel of scaled images; the network is given (scaled - mean) / std.
        has_range: whether the counts have no fixed meaning, so that a range of them, that of the
            image or a fixed one, is scaled to [0, 1]; see `thermal_range`.
        may_be_uniform: whether an image whose pixels are all equal is as good as any, as that of an
            event camera while nothing moves; else it is that of a covered or broken sensor.
        suffixes: of its files, in lower case.
        folder_names: regular expression for the names of folders with such images, in lower case.
        corruptions: faults of the sensor by name, for `evaluation.corruptions`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    channels: ClassVar[int] = 1
    dtypes: ClassVar[tuple[str, ...]] = ('uint8',)
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    has_range: ClassVar[bool] = False
    may_be_uniform: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    folder_names: ClassVar[str]
    corruptions: ClassVar[Mapping[str, Corruption]] = {}

    @abstractmethod
    def read(self, path: Path) -> np.ndarray:
        """Read a raw image from its file, or from the folder of a sensor that writes several files.

        Raises SartmError, naming the file, if it is missing or holds another kind of image.
        """

    def from_values(self, values: np.ndarray) -> np.ndarray:
        """Return the raw image of the numbers that a file or a message holds.

        A modality that is stored in several units converts them here. Raises SartmError if the
        numbers cannot be those of such an image, for instance by their range.
        """
        return values

    def check(self, image: np.ndarray) -> None:
        """Raise SartmError unless this is a raw image of the modality."""
        shape = '(h, w)' if self.channels == 1 else f'(H, W, {self.channels})'
        is_ours = image.ndim == 2 if self.channels == 1 else image.shape[2:] == (self.channels,)
        if not is_ours or str(image.dtype) not in self.dtypes:
            raise SartmError(
                f'{self.title} image is {image.dtype} {image.shape}; expected '
                f'{" or ".join(self.dtypes)} {shape}'
            )
        if image.size == 0:
            raise SartmError(f'{self.title} image is empty: {image.shape}')

    def blank(self, height: int, width: int, dtype: str = '') -> np.ndarray:
        """Return a raw image of zeros, of the modality's first type if none is named."""
        shape = (height, width) if self.channels == 1 else (height, width, self.channels)
        return np.zeros(shape, dtype or self.dtypes[0])

    def fill_invalid(self, image: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the counts of a raw image that may be resampled, and the limits for `scale`.

        Where a sensor has pixels that measure nothing, they are filled. Bytes stay bytes, other
        counts become float32. The limits are those of the image's own range, or None for a modality
        without one.
        """
        return image if image.dtype == np.uint8 else image.astype(np.float32), None

    def scale(self, image: Any, limits: Any = None) -> Any:
        """Return the scaled image, an array or a tensor as the raw image is; the counts by default.

        Training samples hold scaled images in half precision, unless they are bytes. So what has
        counts of 16 bits is to be scaled to numbers of about 1 to 100, such as metres.

        Args:
            image: raw image, or a float32 crop of one.
            limits: the counts that become 0 and 1; those of the image's own range if omitted.
        """
        return image

    def mirror(self, image: Any, normalised: bool = False) -> Any:
        """Return the values that an image has after the scene is mirrored left to right.

        The caller moves the pixels. Here is what else changes, such as the sign of an angle.

        Args:
            image: scaled array or tensor, the channels last.
            normalised: whether mean and deviation are applied, too.
        """
        return image

    def resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize a raw image, linearly."""
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)

    def photometric(
        self, image: np.ndarray, config: DataConfig, rng: np.random.Generator
    ) -> np.ndarray:
        """Augment a scaled training crop by what changes an image but not its labels.

        Here that is Gaussian noise, see `DataConfig.sensor_noise`.
        """
        if not config.sensor_noise:
            return image
        deviation = rng.uniform(0, config.sensor_noise) * np.array(self.std, np.float32)
        noisy = image + deviation * rng.standard_normal(image.shape, np.float32)
        return round_counts(noisy, np.uint8) if image.dtype == np.uint8 else noisy

    def backdrop(self, scaled: Any) -> Any:
        """Return the counts, 0 to 255, that an overlay is blended over: `[H, W, 3]` or `[H, W, 1]`.

        Args:
            scaled: array or tensor.
        """
        grey = scaled if scaled.ndim == 2 else scaled[..., 0]
        return (grey.clip(0, 1) * 255)[..., None]

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return a raw image as people look at it, uint8 RGB `[H, W, 3]`."""
        return np.repeat(to_grey(image if image.ndim == 2 else image[..., 0])[..., None], 3, axis=2)


def round_counts(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Round the values and clip them to the range of the integer type."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


def to_counts(image: Any) -> Any:
    """Convert a raw image to float32. torch has few other operations on uint16."""
    if isinstance(image, np.ndarray):
        return image.astype(np.float32, copy=False)
    return image if image.is_floating_point() else image.float()
