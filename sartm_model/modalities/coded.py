"""Measurements that data sets publish as 8-bit images of three channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sartm_model.modalities.base import Modality
from sartm_model.modalities.faults import blackout, freeze, shift
from sartm_model.modalities.rgb import Rgb
from sartm_model.utils.image_io import read_rgb


class CodedImage(Modality):
    """Bytes `[H, W, 3]` whose channels hold something else than colours, or three times the same.

    They are normalised with the statistics of ImageNet, as in CMNeXt, whose encoders start from
    ImageNet's weights for every modality.

    Attributes:
        advice: a question for who gives an image that does not have 8 bits.
    """

    channels = 3
    mean = Rgb.mean
    std = Rgb.std
    corruptions: ClassVar = {'shift': shift, 'freeze': freeze, 'blackout': blackout}
    advice: ClassVar[str]

    def read(self, path: Path) -> np.ndarray:
        """Read an 8-bit image; grey is repeated, alpha is dropped."""
        return read_rgb(path, self.title, self.advice)

    def backdrop(self, scaled: Any) -> Any:
        """Return the image."""
        return scaled

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the image."""
        return image
