"""Thermal images of an infrared camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sartm_model.modalities.base import Modality
from sartm_model.modalities.thermal_faults import CORRUPTIONS
from sartm_model.utils.image_io import read_counts


class Thermal(Modality):
    """Images of 8 or 16 bits `[h, w]`: radiometric counts, or after automatic gain control."""

    name = 'thermal'
    title = 'thermal'
    dtypes = ('uint8', 'uint16')
    corruptions = CORRUPTIONS
    folder_names = r'therm|infra|lwir|flir|ir(?![a-z])'

    def read(self, path: Path) -> np.ndarray:
        """Read an image of 8 or 16 bits; an 8-bit colour image becomes its luma."""
        return read_counts(path, self.title)
