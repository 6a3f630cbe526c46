"""Temperatures in radiometric JPEG files of FLIR cameras, by the package `flyr`.

Such a file shows a coloured picture of the temperatures to every other program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.errors import SartmError


def is_radiometric(image: Any) -> bool:
    """Return whether an open Pillow image is a JPEG in which a FLIR camera stored its counts."""
    segments = getattr(image, 'applist', ())
    return any(name == 'APP1' and data.startswith(b'FLIR\0') for name, data in segments)


def read_kelvin(path: Path) -> np.ndarray:
    """Read the temperatures of a radiometric JPEG as float32 `[h, w]`, in kelvin.

    They are computed with the emissivity, distance and so on that the camera stored in the file.

    Raises:
        SartmError: `flyr` is not installed, or cannot read the file.
    """
    try:
        import flyr
    except ModuleNotFoundError:
        raise SartmError(
            f'{path} is a radiometric JPEG of FLIR; install flyr (requirements/model.txt) to read '
            'its temperatures, or convert it to a 16-bit image'
        ) from None
    try:
        with np.errstate(all='ignore'):  # it takes logarithms of counts beyond the calibration
            return np.asarray(flyr.unpack(str(path)).kelvin, np.float32)
    except Exception as error:  # what is unusual in a file makes it raise any exception
        raise SartmError(
            f'{path} is a radiometric JPEG of FLIR that flyr cannot read ({error!r}); convert it '
            'to a 16-bit image'
        ) from error
