"""RGB images of a colour camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sartm_model.modalities.base import Modality
from sartm_model.modalities.rgb_faults import CORRUPTIONS
from sartm_model.utils.image_io import read_rgb


class Rgb(Modality):
    """8-bit colour images `[H, W, 3]`."""

    name = 'rgb'
    title = 'RGB'
    channels = 3
    corruptions = CORRUPTIONS
    folder_names = 'rgb|colou?r|visible|vis|image|cam'

    def read(self, path: Path) -> np.ndarray:
        """Read an 8-bit image; grey is repeated, alpha is dropped."""
        return read_rgb(path)
