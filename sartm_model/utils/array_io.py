"""Read files of NumPy into checked arrays, without pickled objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sartm_model.errors import SartmError


def read_array(path: Path) -> np.ndarray:
    """Read the array of a .npy file. Raises SartmError if it is missing, damaged or has objects."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a file of NumPy') from None
    except Exception as error:  # NumPy reads the header as Python text, which has many errors
        reason = ' '.join(str(error).split())
        raise SartmError(f'{path} cannot be read as a .npy file of numbers: {reason}') from error
    if not isinstance(array, np.ndarray):
        raise SartmError(f'{path} is an archive of arrays; expected a .npy file of one array')
    return array


def read_channels(path: Path, channels: int, title: str) -> np.ndarray:
    """Read a .npy file as a float32 image `[H, W, C]`; `[C, H, W]` is transposed.

    Raises:
        SartmError: the file cannot be read, has another number of channels, or a value that is
            not a finite number.
    """
    array = read_array(path)
    if array.ndim == 3 and array.shape[0] == channels and array.shape[2] != channels:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] != channels or array.dtype.kind not in 'iuf':
        raise SartmError(
            f'{path} holds {array.dtype} {array.shape}; expected numbers (H, W, {channels}) or '
            f'({channels}, H, W) of {title}'
        )
    image = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(image).all():
        raise SartmError(f'{path} has values that are no finite numbers; expected none')
    return image
