"""Image files of RGB, thermal and labels into arrays, checked.

Every fault is a SartmError that names the file. Pillow reads them, because it gives the indices of
a palette image, which is what label images are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID

GREY_16 = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')


def read_rgb(path: Path) -> np.ndarray:
    """An 8-bit image as uint8 `[H, W, 3]` RGB; grey is repeated, alpha is dropped."""
    image = _open(path)
    if image.mode in GREY_16 or image.mode == 'F':
        raise SartmError(
            f'{path} is a {_kind(image)} image; an RGB image must be 8-bit colour (is it thermal?)'
        )
    return np.array(image.convert('RGB'))


def read_thermal(path: Path) -> np.ndarray:
    """A thermal image as uint8 or uint16 `[H, W]`; of a colour image, the luma (ITU-R BT.601)."""
    image = _open(path)
    if image.mode in GREY_16:
        counts = np.array(image)
        if counts.min() < 0 or counts.max() > np.iinfo(np.uint16).max:
            raise SartmError(f'{path} has values beyond 16 bits; thermal must be 8- or 16-bit')
        return counts.astype(np.uint16)
    if image.mode == 'F':
        raise SartmError(f'{path} is a floating-point image; thermal must be 8- or 16-bit')
    return np.array(image.convert('L'))


def read_labels(path: Path, num_classes: int) -> np.ndarray:
    """A one-channel image of class ids below `num_classes` (or 255) as uint8 `[H, W]`."""
    image = _open(path)
    if image.mode not in ('1', 'L', 'P', *GREY_16):
        raise SartmError(
            f'{path} is a {_kind(image)} image; labels must have one channel that holds class ids '
            '(a coloured picture of labels has lost them)'
        )
    ids = np.array(image)
    wrong = np.unique(ids[(ids >= num_classes) & (ids != IGNORE_ID) | (ids < 0)])
    if len(wrong):
        found = ', '.join(map(str, wrong[:5]))
        raise SartmError(
            f'{path} has the class id {found}, but the {num_classes} classes have the ids 0 to '
            f'{num_classes - 1} ({IGNORE_ID} is "not labelled"); is it of another data set?'
        )
    return ids.astype(np.uint8)


def read_rgbt(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """RGB uint8 `[H, W, 3]` and thermal uint8 `[H, W]` of an RGBA image with thermal in alpha."""
    image = _open(path)
    if image.mode != 'RGBA':
        raise SartmError(f'{path} is a {_kind(image)} image; expected RGBA with thermal in alpha')
    both = np.array(image)
    return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3])


def _open(path: Path) -> Image.Image:
    """The image, decoded in full, so that a truncated file is found here."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected an image') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = ' '.join(str(error).split())
        raise SartmError(f'{path} cannot be read as an image: {reason}') from error


def _kind(image: Image.Image) -> str:
    """What an image is, in words for a message."""
    if image.mode in GREY_16:
        return '16-bit or 32-bit one-channel'
    return 'floating-point' if image.mode == 'F' else f'{len(image.getbands())}-channel'
