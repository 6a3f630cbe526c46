"""Converts `sensor_msgs/Image` to numpy, without copying where the encoding allows it.

`to_modality`, `to_rgb` and `to_thermal` also accept a `sensor_msgs/CompressedImage`, which they
decompress first.
They need no ROS: they accept any object with the fields of the message, such as the messages of the
rosbags library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.utils.counts import from_signed, from_temperatures
from sartm_ros.messages import cv_bridge_convert, encodings
from sartm_ros.messages.compressed import check_keeps_counts, decompress
from sartm_ros.messages.compressed_depth import TRANSPORT, decompress_depth
from sartm_ros.messages.encodings import LAYOUTS


def stamp_of(header: Any) -> int:
    """Return a header's stamp in nanoseconds; 0, which is not a valid stamp, if malformed."""
    seconds, nanoseconds = header.stamp.sec, header.stamp.nanosec
    if not 0 <= nanoseconds < 1_000_000_000:
        return 0
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def to_rgb(msg: Any) -> np.ndarray:
    """Return the image as RGB uint8 `[H, W, 3]`.

    Packed colour and monochrome images are views of the message, possibly with negative or zero
    strides; of 16 bits the upper 8 are taken. Bayer and YUV images are converted, YUV as BT.601 in
    studio range.

    Raises:
        SartmError: the encoding is not one of `encodings.RGB`, the sizes are inconsistent, or a
            compressed image is damaged.
    """
    msg = _raw(msg)
    layout = LAYOUTS.get(msg.encoding)
    if layout is None:
        return _convert_with_cv_bridge(msg, 'rgb8', encodings.RGB)
    if msg.encoding not in encodings.RGB:
        raise SartmError(
            f'the RGB image has encoding {msg.encoding!r}, of a thermal or depth image; expected '
            f'one of {", ".join(encodings.RGB)}. Are the two topics exchanged?'
        )
    pixels = encodings.pixels(msg, layout)
    if layout.to_rgb:
        pixels = _convert(pixels, layout.to_rgb, msg)
    if layout.dtype == 'u2':
        pixels = encodings.upper_bytes(pixels)
    if layout.colors is not None:
        return pixels[:, :, layout.colors]
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def to_thermal(msg: Any, shift: int = 0) -> np.ndarray:
    """Return the image as counts, uint8 or uint16 `[H, W]` in native byte order.

    Monochrome images and the luma of YUV are views of the message. Of colours the luma is taken, of
    32FC1 the temperatures in 0.01 K, and 16SC1 is offset by 32768: see `sartm_model.utils.counts`.

    Args:
        msg: an `Image` or a `CompressedImage`.
        shift: how many bits unsigned counts of 16 bits are shifted down, for cameras whose data
            fill the upper bits.

    Raises:
        SartmError: the encoding is unknown, the sizes are inconsistent, or a compressed image is
            damaged or has lost the lower bits of its counts.
    """
    raw = _raw(msg)
    if raw is not msg:
        check_keeps_counts(msg.format, raw)
    layout = LAYOUTS.get(raw.encoding)
    if layout is None:
        image = _convert_with_cv_bridge(raw, 'passthrough', encodings.THERMAL)
        if image.ndim != 2:
            raise _unknown_encoding(
                raw, encodings.THERMAL, f'cv_bridge gives an image of {image.shape}'
            )
        return _counts(image, shift, raw)
    if raw.encoding not in encodings.THERMAL:
        raise SartmError(
            f'the thermal image has encoding {raw.encoding!r}, of {layout.channels} channels; '
            f'expected one of {", ".join(encodings.THERMAL)}'
        )
    pixels = encodings.pixels(raw, layout)
    if layout.colors is not None:
        grey = _convert(pixels[:, :, layout.colors], 'COLOR_RGB2GRAY', raw)
    elif layout.luma is not None:
        grey = pixels[: raw.height, :, layout.luma]
    elif layout.to_rgb:
        grey = _convert(pixels, layout.to_rgb.replace('RGB', 'GRAY'), raw)
    else:
        grey = pixels[:, :, 0]
    return _counts(grey, shift, raw)


def to_modality(msg: Any, name: str, shift: int = 0) -> np.ndarray:
    """Return a raw image of a modality, as `MODALITIES` has it.

    It is a view of the message, possibly with negative or zero strides, unless its numbers have to
    be converted, such as depth in metres.

    Args:
        msg: an `Image` or a `CompressedImage`.
        name: of the modality.
        shift: see `to_thermal`; without effect on other modalities.

    Raises:
        SartmError: the encoding is not one that is read as this modality, the sizes are
            inconsistent, a compressed image is damaged or has lost the lower bits of its numbers,
            or the numbers cannot be those of such an image.
    """
    if name == 'rgb':
        return to_rgb(msg)
    if name == 'thermal':
        return to_thermal(msg, shift)
    modality, channels = MODALITIES[name], encodings.CHANNELS[name]
    if TRANSPORT in getattr(msg, 'format', ''):
        raw = decompress_depth(msg)
    else:
        raw = _raw(msg)
        if raw is not msg and 'uint8' not in modality.dtypes:
            check_keeps_counts(msg.format, raw)
    if raw.encoding not in channels:
        raise SartmError(
            f'the image has encoding {raw.encoding!r}; expected one of {", ".join(channels)} for '
            f'{modality.title} images'
        )
    pixels = encodings.pixels(raw, LAYOUTS[raw.encoding])[:, :, channels[raw.encoding]]
    if modality.channels == 1:
        return modality.from_values(pixels[:, :, 0])
    return modality.from_values(np.broadcast_to(pixels, (*pixels.shape[:2], modality.channels)))


def _raw(msg: Any) -> Any:
    return decompress(msg) if hasattr(msg, 'format') else msg


def _counts(image: np.ndarray, shift: int, msg: Any) -> np.ndarray:
    """Return one-channel pixels of any type that a thermal image may have as counts."""
    if image.dtype == np.uint16:
        return image >> np.uint16(shift) if shift else image
    if image.dtype == np.int16:
        return from_signed(image)
    if image.dtype.kind == 'f':
        return from_temperatures(image)
    if image.dtype != np.uint8:
        raise _unknown_encoding(msg, encodings.THERMAL, f'cv_bridge gives {image.dtype}')
    return image


def _convert(view: np.ndarray, code: str, msg: Any) -> np.ndarray:
    import cv2

    try:
        return cv2.cvtColor(np.ascontiguousarray(view), getattr(cv2, code))
    except cv2.error as error:
        raise SartmError(
            f'a {msg.width}x{msg.height} image cannot be converted from {msg.encoding}; '
            'expected an even width'
        ) from error


def _convert_with_cv_bridge(msg: Any, desired: str, read: tuple[str, ...]) -> np.ndarray:
    """Convert an encoding that is not in `LAYOUTS`; `read` are those that need no `cv_bridge`."""
    try:
        return cv_bridge_convert.convert(msg, desired)
    except SartmError as error:
        raise _unknown_encoding(msg, read, str(error)) from error


def _unknown_encoding(msg: Any, read: tuple[str, ...], reason: str) -> SartmError:
    return SartmError(
        f'image encoding {msg.encoding!r} is not supported; expected one of {", ".join(read)}; '
        f'{reason}'
    )
