"""Thermal images of an infrared camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sartm_model.config import DataConfig
from sartm_model.modalities.base import Modality, round_counts, to_counts
from sartm_model.modalities.thermal_faults import CORRUPTIONS, corrupt_thermal
from sartm_model.modalities.thermal_range import (
    MEAN,
    enforce_min_span,
    has_8_bits,
    nan_to_zero,
    own_range,
    replace_invalid,
    scale_counts,
    scale_thermal,
)
from sartm_model.modalities.thermal_valid import GROWTH, invalid_pixels
from sartm_model.utils.image_io import read_counts
from sartm_model.utils.visualization import to_grey


class Thermal(Modality):
    """Images of 8 or 16 bits `[h, w]`: radiometric counts, or after automatic gain control.

    One channel stands where SAM2 expects three; mean and deviation are the means of RGB's.
    """

    name = 'thermal'
    title = 'thermal'
    dtypes = ('uint8', 'uint16')
    mean = (MEAN,)
    std = (0.226,)
    has_range = True
    folder_names = r'therm|infra|lwir|flir|t?ir(?![a-z])'
    corruptions = CORRUPTIONS

    def read(self, path: Path) -> np.ndarray:
        """Read an image of 8 or 16 bits, or of temperatures; 8-bit colour becomes its luma."""
        return read_counts(path, self.title)

    def fill_invalid(self, image: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the counts with those that scale to the mean where the image sees nothing.

        The range is that of the valid pixels, apart enough that a flat image is not stretched.
        Where no pixel is valid, it is one around 0.
        """
        counts = to_counts(image)
        invalid = invalid_pixels(counts, has_8_bits(image))
        own = own_range(image, invalid)
        low, high = enforce_min_span(nan_to_zero(own), has_8_bits(image))
        return replace_invalid(counts, invalid, low + MEAN * (high - low)), (low, high)

    def scale(self, image: Any, limits: Any = None) -> Any:
        """Map counts to float32 in [-1, 2], with the limits of the range at 0 and 1.

        The pixels of a raw image that see nothing become the mean; see `thermal_valid`.
        """
        is_raw = str(image.dtype).removeprefix('torch.') in self.dtypes
        return scale_thermal(image, limits) if is_raw else scale_counts(image, limits)

    def resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize linearly what the image sees. Fill stays fill, which `scale` finds again.

        Counts between those of the scene and of fill would be taken for the scene. The predictor
        scales before it resizes, so it never has them; the result is nearly that of this order.
        """
        invalid = invalid_pixels(to_counts(image), has_8_bits(image))
        if not invalid.any():
            return super().resize(image, height, width)
        filled = round_counts(self.fill_invalid(image)[0], image.dtype)
        resized = super().resize(filled, height, width)
        square = np.ones((2 * GROWTH + 1,) * 2, np.uint8)
        fill = cv2.erode(invalid.astype(np.uint8), square)
        nearest, is_fill = (
            cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            for x in (image, fill)
        )
        return np.where(is_fill, nearest, resized)

    def photometric(
        self, image: np.ndarray, config: DataConfig, rng: np.random.Generator
    ) -> np.ndarray:
        """Misalign, freeze and add noise to the image, as the configuration says."""
        return corrupt_thermal(image, config, rng)

    def show(self, image: np.ndarray) -> np.ndarray:
        """Show the image in false colours, from black for cold to yellow for hot.

        The range is the image's own 1st to 99.7th percentile. What sees nothing has one colour.
        """
        grey = to_grey(self.fill_invalid(image)[0], (0.01, 0.997))
        return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]
