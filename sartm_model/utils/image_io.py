"""Read image files into checked arrays.

Every function that reads pixels raises SartmError, naming the file, for a file that is missing, is
no image or holds pixels of another kind than asked for. Pillow reads the files, because it gives
the indices of a palette image, which are the class ids. Images are turned upright as their EXIF
orientation says.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID
from sartm_model.utils.array_io import read_array
from sartm_model.utils.counts import from_signed, from_temperatures
from sartm_model.utils.flir import is_radiometric, read_kelvin

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
"""The suffixes of image files, in lower case."""

GREY_16 = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')
"""Pillow's modes of one channel with more than 8 bits."""


def read_rgb(path: Path, title: str = 'RGB', advice: str = 'is it thermal?') -> np.ndarray:
    """Read an 8-bit image as uint8 `[H, W, 3]` RGB; grey is repeated, alpha is dropped.

    An image of 16 bits per channel is refused: which 8 of them to keep depends on the camera.

    Args:
        path: the file.
        title: the kind of image, for messages.
        advice: what to ask where the image has more than 8 bits.
    """
    image = _open(path)
    if image.mode in GREY_16 or image.mode == 'F':
        raise SartmError(
            f'{path} is a {_kind(image)} image; {title} must be 8-bit colour ({advice})'
        )
    return np.array(image.convert('RGB'))


def read_counts(path: Path, title: str) -> np.ndarray:
    """Read a one-channel image of a sensor as uint8 or uint16 `[H, W]`.

    An 8-bit colour image becomes its luma (ITU-R BT.601). A 16-bit colour image is read where its
    channels are equal, as some cameras store grey, and refused otherwise. A floating-point image
    and a radiometric JPEG of FLIR hold temperatures, which become hundredths of a kelvin, and a
    TIFF of signed 16 bits is offset: see `sartm_model.utils.counts`.

    Args:
        path: the file.
        title: the kind of image, for messages.
    """
    image = _open(path, as_counts=True)
    if image.mode == 'F':
        return from_temperatures(np.array(image))
    if image.mode in GREY_16:
        counts = np.array(image)
        if _is_signed_16(image):
            return from_signed(counts.astype(np.int16))
        if counts.min() < 0 or counts.max() > np.iinfo(np.uint16).max:
            raise SartmError(f'{path} has values beyond 16 bits; {title} must be 8- or 16-bit')
        return counts.astype(np.uint16)
    return np.array(image.convert('L'))


def read_measurements(path: Path, title: str, advice: str) -> np.ndarray:
    """Read a one-channel image as uint16 or float32 `[H, W]`, the numbers as they are stored.

    Args:
        path: the file.
        title: the kind of image, for messages.
        advice: what to ask where the image is another one.
    """
    image = _open(path)
    if image.mode == 'F':
        return np.array(image)
    if image.mode not in GREY_16:
        raise SartmError(
            f'{path} is an 8-bit image; {title} must be 16-bit or floating-point ({advice})'
        )
    counts = np.array(image)
    if counts.min() < 0 or counts.max() > np.iinfo(np.uint16).max:
        raise SartmError(f'{path} has values beyond 16 bits; {title} must be unsigned 16-bit')
    return counts.astype(np.uint16)


def read_labels(path: Path, num_classes: int) -> np.ndarray:
    """Read a one-channel image of class ids below `num_classes` (or 255) as uint8 `[H, W]`."""
    ids = read_raw_ids(path)
    wrong = np.unique(ids[(ids >= num_classes) & (ids != IGNORE_ID) | (ids < 0)])
    if len(wrong):
        found = ', '.join(map(str, wrong[:5]))
        raise SartmError(
            f'{path} has the class id {found}, but the {num_classes} classes have the ids 0 to '
            f'{num_classes - 1} ({IGNORE_ID} is "not labelled"); is it of another data set, or '
            'does it have raw ids, which a label_map of a data set folder converts?'
        )
    return ids.astype(np.uint8)


def read_raw_ids(path: Path) -> np.ndarray:
    """Read a one-channel image of whole numbers of any meaning as integers `[H, W]`.

    It may also be a .npy file.
    """
    if path.suffix.lower() == '.npy':
        array = read_array(path)
        if array.ndim != 2 or array.dtype.kind not in 'iu':
            raise SartmError(
                f'{path} holds {array.dtype} {array.shape}; labels must be integers (H, W)'
            )
        return array
    image = _open(path)
    if image.mode not in ('1', 'L', 'P', *GREY_16):
        raise SartmError(
            f'{path} is a {_kind(image)} image; labels must have one channel that holds class ids '
            '(a coloured picture of labels has lost them)'
        )
    ids = np.array(image)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def read_label_colors(path: Path) -> np.ndarray:
    """Read a coloured picture of labels, with a palette or without, as uint8 `[H, W, 3]` RGB."""
    image = _open(path)
    if image.mode not in ('P', 'RGB', 'RGBA'):
        raise SartmError(
            f'{path} is a {_kind(image)} image; expected a coloured one, because the label_map '
            'has colours'
        )
    return np.array(image.convert('RGB'))


def read_rgba(path: Path, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an RGBA image as its colours, uint8 `[H, W, 3]`, and its alpha, uint8 `[H, W]`.

    Args:
        path: the file.
        first, second: modalities of the colours and of alpha, for the error.

    Raises:
        SartmError: the file is no RGBA image.
    """
    image = _open(path)
    if image.mode != 'RGBA':
        raise SartmError(
            f'{path} is a {_kind(image)} image; expected RGBA, with {second} in alpha, because it '
            f'is given for both {first} and {second}: give two files, or two folders, if each has '
            'its own'
        )
    both = np.array(image)
    return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3])


def palette_colors(path: Path) -> list[tuple[int, int, int]]:
    """Read the (red, green, blue) of each index of a palette image; empty for another file."""
    try:
        with Image.open(path) as image:
            values = image.getpalette() if image.mode == 'P' else None
    except UnidentifiedImageError:  # an array of NumPy
        return []
    return list(zip(*[iter(values or [])] * 3, strict=True))


def has_colors(path: Path) -> bool:
    """Whether an image has channels that differ, as read to 8 bits; False for another file.

    Of an image of one channel, only the header is read.
    """
    try:
        with Image.open(path) as image:
            if len(image.getbands()) == 1 and image.mode != 'P':
                return False
            pixels = np.array(image.convert('RGB'))
    except UnidentifiedImageError:  # an array of NumPy
        return False
    return bool((pixels != pixels[..., :1]).any())


def exif_orientation(path: Path) -> int:
    """Read the EXIF orientation of an image: 1 for upright or none, 5 to 8 where it lies aside.

    A file that is no image, such as an array of NumPy, has none.
    """
    try:
        with Image.open(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except UnidentifiedImageError:
        return 1


def _open(path: Path, *, as_counts: bool = False) -> Image.Image:
    """Decode an image in full, so that a truncated file is found here, and turn it upright.

    With `as_counts` 16-bit colour whose channels are equal becomes one channel, and a radiometric
    JPEG the temperatures in it.
    """
    try:
        # By path, Pillow (11.3, 13.0) scrambles uncompressed TIFFs that EXIF turns by 90 degrees.
        with path.open('rb') as file, Image.open(file) as image:
            # Pillow has no mode for colour of 16 bits per channel and drops the lower 8 of them.
            has_16_bit_colour = image.mode not in GREY_16 and any(
                ';16' in str(tile[3]) for tile in image.tile
            )
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected an image') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = ' '.join(str(error).split())
        if isinstance(error, UnidentifiedImageError) and path.suffix.lower() in ('.tif', '.tiff'):
            reason += '; is it a TIFF of 16- or 64-bit floating point? Of those 32 bits are read'
        raise SartmError(f'{path} cannot be read as an image: {reason}') from error
    upright: Image.Image = image
    if as_counts and is_radiometric(image):
        upright = Image.fromarray(read_kelvin(path))
        upright.getexif()[ExifTags.Base.Orientation] = orientation
    elif has_16_bit_colour:
        if not as_counts:
            raise SartmError(
                f'{path} is a 16-bit colour image; expected 8 bits per channel. Convert it, with '
                'the scaling that suits its camera'
            )
        upright = Image.fromarray(_common_channel(path))
        upright.getexif()[ExifTags.Base.Orientation] = orientation
    upright.info.pop('exif', None)  # which would be written anew, and a damaged one cannot be
    ImageOps.exif_transpose(upright, in_place=True)
    return upright


def _is_signed_16(image: Image.Image) -> bool:
    """Return whether an image is a TIFF of signed integers of 16 bits."""
    tags = getattr(image, 'tag_v2', {})
    kind = tags.get(TiffImagePlugin.SAMPLEFORMAT), tags.get(TiffImagePlugin.BITSPERSAMPLE)
    return kind == ((2,), (16,))


def _common_channel(path: Path) -> np.ndarray:
    """Read the one image, uint16 `[H, W]`, that all colour channels of a 16-bit image hold."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise SartmError(f'{path} cannot be read as a 16-bit image; save it with one channel')
    if (pixels[..., :3] != pixels[..., :1]).any():
        raise SartmError(
            f'{path} is a 16-bit colour image whose channels differ; expected one channel or '
            'equal channels'
        )
    return np.ascontiguousarray(pixels[..., 0])


def _kind(image: Image.Image) -> str:
    """Describe the pixels of an image for a message."""
    if image.mode in GREY_16:
        return '16-bit or 32-bit one-channel'
    return 'floating-point' if image.mode == 'F' else f'{len(image.getbands())}-channel'
