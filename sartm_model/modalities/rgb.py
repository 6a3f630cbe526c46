"""RGB images of a colour camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.config import DataConfig
from sartm_model.modalities.base import Modality
from sartm_model.modalities.rgb_faults import CORRUPTIONS, color_jitter, over_expose
from sartm_model.utils.image_io import read_rgb


class Rgb(Modality):
    """8-bit colour images `[H, W, 3]`, normalised with the statistics of ImageNet, as for SAM2."""

    name = 'rgb'
    title = 'RGB'
    channels = 3
    mean = tuple(255 * value for value in (0.485, 0.456, 0.406))
    std = tuple(255 * value for value in (0.229, 0.224, 0.225))
    folder_names = 'rgb|colou?r|visible|vis|image|cam'
    corruptions = CORRUPTIONS

    def read(self, path: Path) -> np.ndarray:
        """Read an 8-bit image; grey is repeated, alpha is dropped."""
        return read_rgb(path)

    def photometric(
        self, image: np.ndarray, config: DataConfig, rng: np.random.Generator
    ) -> np.ndarray:
        """Change the colours, blur and over-expose the image, as the configuration says."""
        return over_expose(color_jitter(image, config, rng), config, rng)

    def backdrop(self, scaled: Any) -> Any:
        """Return the image."""
        return scaled

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the image."""
        return image
