"""What users set about thermal images: range, crop, counts without a measurement, polarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sartm_model.errors import SartmError

TELEMETRY_ROWS = {(122, 160): 2, (63, 80): 3, (514, 640): 2, (258, 320): 2}
"""Rows of telemetry by the height and width of images that have them: FLIR Lepton 3, Lepton 2, and
Boson of 640 and of 320 columns."""

POLARITIES = ('white_hot', 'black_hot')


@dataclass(frozen=True)
class ThermalSettings:
    """How the images of a thermal camera are read and scaled for the network.

    The node builds it from its parameters `thermal.*`; `Predictor` and `sartm export` take it.

    Attributes:
        mode: 'percentile' takes the 1st and the 99th percentile of each image; 'fixed' takes
            `low` and `high`.
        low: counts that become 0 (mode 'fixed').
        high: counts that become 1 (mode 'fixed').
        smoothing_s: time constant, in seconds, of an exponential moving average of the percentiles
            over the images of a video. 0 gives each image its own percentiles. Only `Predictor`
            uses it, because it needs the images in order.
        crop: rows and columns that are cut off at the top, right, bottom and left before anything
            else, such as rows of telemetry. What is left is resized to the field of view of RGB. A
            homography refers to the image before the crop.
        invalid: counts that mean 'no measurement'; see `thermal_valid`.
        polarity: 'white_hot' if hot things have high counts, 'black_hot' if they have low ones.

    Raises:
        SartmError: the mode or the polarity is unknown, the range is empty, or a number is out of
            its limits.
    """

    mode: str = 'percentile'
    low: float = 0.0
    high: float = 255.0
    smoothing_s: float = 0.0
    crop: tuple[int, ...] = (0, 0, 0, 0)
    invalid: tuple[int, ...] = ()
    polarity: str = 'white_hot'

    def __post_init__(self) -> None:
        for name in ('crop', 'invalid'):  # JSON and ROS have lists, the latter of floats too
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name)))
        if self.mode not in ('percentile', 'fixed'):
            raise SartmError(f'thermal range mode {self.mode!r}; expected percentile or fixed')
        if self.mode == 'fixed' and not self.low < self.high:
            raise SartmError(
                f'thermal range [{self.low}, {self.high}] is empty; expected low < high, in counts'
            )
        if not self.smoothing_s >= 0:
            raise SartmError(f'thermal smoothing is {self.smoothing_s} s; expected 0 or more')
        if len(self.crop) != 4:
            raise SartmError(
                f'thermal crop {list(self.crop)} has {len(self.crop)} numbers; expected '
                '[top, right, bottom, left], in pixels'
            )
        if self.polarity not in POLARITIES:
            raise SartmError(
                f'thermal polarity {self.polarity!r}; expected {" or ".join(POLARITIES)}'
            )

    @property
    def fixed_range(self) -> tuple[float, float] | None:
        """The counts that become 0 and 1; None if each image has its own."""
        return (self.low, self.high) if self.mode == 'fixed' else None

    @property
    def black_hot(self) -> bool:
        """Whether hot things have low counts."""
        return self.polarity == 'black_hot'

    def describe(self) -> str:
        """Return the settings as an error message names them; those at their default are left out.

        >>> ThermalSettings('fixed', 0, 500, crop=(0, 0, 2, 0)).describe()
        'fixed 0 to 500, crop [0, 0, 2, 0]'
        """
        parts = [self.mode + (f' {self.low:g} to {self.high:g}' if self.mode == 'fixed' else '')]
        if self.smoothing_s:
            parts[0] += f', smoothed over {self.smoothing_s:g} s'
        if any(self.crop):
            parts.append(f'crop {list(self.crop)}')
        if self.invalid:
            parts.append(f'invalid {list(self.invalid)}')
        return ', '.join([*parts, *([self.polarity] if self.black_hot else [])])


def crop_image(image: Any, crop: tuple[int, ...]) -> Any:
    """Return a view of an image `[h, w]`, array or tensor, without what `crop` cuts off.

    Args:
        image: of any type.
        crop: `ThermalSettings.crop`.

    Raises:
        SartmError: nothing is left.
    """
    top, _, _, left = crop
    height, width = cropped_size((image.shape[0], image.shape[1]), crop)
    return image[top : top + height, left : left + width]


def cropped_size(size: tuple[int, int], crop: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width after the crop. Raises SartmError if nothing is left."""
    top, right, bottom, left = crop
    height, width = size[0] - top - bottom, size[1] - left - right
    if height < 1 or width < 1:
        raise SartmError(
            f'thermal crop {list(crop)} leaves nothing of an image of {size[1]}x{size[0]} pixels; '
            'expected [top, right, bottom, left], the rows and columns to cut off'
        )
    return height, width


def telemetry_rows(image: np.ndarray) -> int:
    """Return how many rows of a 16-bit image are telemetry, by its size; 0 where none is known."""
    size = (image.shape[0], image.shape[1])
    return TELEMETRY_ROWS.get(size, 0) if image.dtype == np.uint16 else 0


def homography_after_crop(homography: np.ndarray, crop: tuple[int, ...]) -> np.ndarray:
    """Return the homography from pixels of the cropped image, given that of the whole, `[3, 3]`."""
    top, _, _, left = crop
    return homography @ np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not all(0 <= value <= 65535 and value == int(value) for value in values):  # nor NaN
        raise SartmError(
            f'thermal {name} is {list(values)}; expected whole numbers from 0 to 65535'
        )
    return tuple(int(value) for value in values)
