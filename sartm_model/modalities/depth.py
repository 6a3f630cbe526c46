"""Depth images: distances in millimetres, and what data sets publish in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from sartm_model.config import DataConfig
from sartm_model.errors import SartmError
from sartm_model.modalities.base import SEVERITIES, EarlierImage, Modality, to_counts
from sartm_model.modalities.coded import CodedImage
from sartm_model.modalities.faults import freeze, shift
from sartm_model.modalities.thermal_range import replace_invalid
from sartm_model.utils.image_io import read_measurements
from sartm_model.utils.percentiles import percentiles

NO_READING = 0
"""The value of a pixel for which the sensor found no distance."""

FARTHEST_MM = 65535
"""Larger distances become this."""

MM_PER_METRE = 1000.0

MEAN_METRES = 5.0
STD_METRES = 5.0
"""Mean and standard deviation by which distances are normalised; `ours`, indoors and outdoors."""

PLAUSIBLE_METRES = 200.0
"""If the median of an image in metres is above this, it is taken for one in millimetres."""

PLAUSIBLE_MM = 100
"""If the largest value of an image in millimetres is below this, it is taken for metres."""

# One value per severity of an evaluation.
NOISE = (0.002, 0.004, 0.008, 0.016, 0.032)  # standard deviation at 1 m, in metres
HOLES = (0.05, 0.1, 0.2, 0.35, 0.5)  # share of the pixels


def millimetres(metres: np.ndarray) -> np.ndarray:
    """Convert distances in metres to millimetres, uint16 of the same shape.

    NaN, minus infinity, 0 and negative numbers are no reading and become 0, and what is farther
    than 65.535 m, plus infinity included (REP 117: no return), becomes 65535.

    Raises:
        SartmError: the median distance is so large that the image must be in millimetres.
    """
    known = np.isfinite(metres) & (metres > 0)
    some = metres[known][::16]  # enough for a median
    if some.size and np.median(some) > PLAUSIBLE_METRES:
        raise SartmError(
            f'depth in floating point has a median of {np.median(some):.6g}; expected metres. Is '
            'it in millimetres? Divide it by 1000, or store it as 16-bit integers'
        )
    within = np.where(metres > 0, metres, 0).clip(0, FARTHEST_MM / MM_PER_METRE)
    return np.rint(within * MM_PER_METRE).astype(np.uint16)


def noise(
    depth: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add Gaussian noise whose deviation grows with the square of the distance, as in stereo.

    It is 2 to 32 mm at 1 m. Pixels without a reading stay so.
    """
    metres = depth.astype(np.float32) / MM_PER_METRE
    noisy = metres + NOISE[severity - 1] * metres**2 * rng.standard_normal(depth.shape, np.float32)
    counts = np.rint(noisy * MM_PER_METRE).clip(NO_READING + 1, FARTHEST_MM).astype(depth.dtype)
    return np.where(depth == NO_READING, depth, counts)


def holes(
    depth: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Remove the reading of 5 to 50 % of the pixels, in blobs, as on dark or shiny surfaces."""
    height, width = depth.shape
    field = cv2.GaussianBlur(
        rng.standard_normal((height, width), np.float32), (0, 0), max(1.0, height / 40)
    )
    (limit,) = percentiles(field, (HOLES[severity - 1],))
    return np.where(field <= limit, depth.dtype.type(NO_READING), depth)


def blackout(
    depth: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Remove every reading in 20 to 100 % of the frames, as in sensor dropouts."""
    return depth if rng.random() >= severity / len(SEVERITIES) else np.zeros_like(depth)


class Depth(Modality):
    """Distances along the optical axis in millimetres, uint16 `[h, w]`; 0 is no reading.

    Scaled images are in metres. A pixel without a reading has the mean, so it is 0 after the
    normalisation, as is all that a camera does not see.
    """

    name = 'depth'
    title = 'depth'
    dtypes = ('uint16',)
    mean = (MEAN_METRES,)
    std = (STD_METRES,)
    folder_names = r'depth|distance'
    corruptions: ClassVar = {
        'noise': noise, 'holes': holes, 'shift': shift, 'freeze': freeze, 'blackout': blackout
    }  # fmt: skip

    def read(self, path: Path) -> np.ndarray:
        """Read a 16-bit image in millimetres, or a floating-point one in metres.

        Raises SartmError, naming the file, also if its numbers look like those of the other unit.
        """
        image = read_measurements(path, self.title, 'is it coded, as modality hha or depth_coded?')
        try:
            return self.from_values(image)
        except SartmError as error:
            raise SartmError(f'{path}: {error}') from None

    def from_values(self, values: np.ndarray) -> np.ndarray:
        """Return integers, which are millimetres, as they are, and floating-point metres converted.

        Raises SartmError if the numbers look like those of the other unit.
        """
        if values.dtype.kind == 'f':
            return millimetres(values)
        farthest = values.max(initial=NO_READING)
        if NO_READING < farthest < PLAUSIBLE_MM:
            raise SartmError(
                f'depth in integers is at most {farthest}; expected millimetres. Is it in metres? '
                'Multiply it by 1000, or store it in floating point'
            )
        return values

    def check(self, image: np.ndarray) -> None:
        """Raise SartmError unless this is a raw image of the modality."""
        if image.dtype.kind == 'f':
            raise SartmError(
                f'depth image is {image.dtype}; expected uint16 in millimetres, which '
                'sartm_model.modalities.depth.millimetres makes of metres'
            )
        super().check(image)

    def fill_invalid(self, image: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the counts with the mean distance where there is no reading."""
        counts = to_counts(image)
        return replace_invalid(counts, counts == NO_READING, MEAN_METRES * MM_PER_METRE), None

    def scale(self, image: Any, limits: Any = None) -> Any:
        """Convert millimetres to metres, with the mean where there is no reading."""
        counts = to_counts(image)
        return replace_invalid(counts / MM_PER_METRE, counts == NO_READING, MEAN_METRES)

    def resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize without interpolation: between a distance and no reading there is nothing."""
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def photometric(
        self, image: np.ndarray, config: DataConfig, rng: np.random.Generator
    ) -> np.ndarray:
        """Add noise where there is a reading, which is wherever the distance is not the mean."""
        return np.where(image == MEAN_METRES, image, super().photometric(image, config, rng))

    def backdrop(self, scaled: Any) -> Any:
        """Return a grey image, from white for near to black for 10 m."""
        return (1 - scaled / (2 * MEAN_METRES)).clip(0, 1)[..., None] * 255

    def show(self, image: np.ndarray) -> np.ndarray:
        """Show the image in false colours, from red for near to blue for far; black: no reading.

        The range is that of the 1st to the 99th percentile of the readings.
        """
        known = image != NO_READING
        low, high = percentiles(image[known], (0.01, 0.99)) if known.any() else (0.0, 1.0)
        nearness = 1 - (image.astype(np.float32) - low) / max(high - low, 1.0)
        shown = cv2.applyColorMap((nearness.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        shown[~known] = 0
        return shown[..., ::-1]


class Hha(CodedImage):
    """Depth as HHA: horizontal disparity, height above ground, angle with gravity (Gupta, 2014).

    The channels are independent measurements, so this is another modality than `depth`, from which
    HHA can be computed only with the camera's intrinsics and the direction of gravity.
    """

    name = 'hha'
    title = 'HHA'
    folder_names = 'hha'
    advice = 'is it depth in millimetres, modality depth?'


class CodedDepth(CodedImage):
    """Depth as 8-bit images without a unit, such as those in the folder `depth` of DELIVER."""

    name = 'depth_coded'
    title = 'coded depth'
    folder_names = r'depth_?(coded|8)'
    advice = 'is it depth in millimetres, modality depth?'
