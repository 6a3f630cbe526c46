"""Converts `sensor_msgs/Image` to numpy and back, without copying where the encoding allows it.

`to_rgb` and `to_thermal` also accept a `sensor_msgs/CompressedImage`, which they decompress first.
Only `from_numpy` needs ROS. The others accept any object with the fields of the message, such as
the messages of the rosbags library.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import numpy as np

from sartm_model.errors import SartmError
from sartm_ros.messages.compressed import decompress


class _Layout(NamedTuple):
    dtype: str
    channels: int


_LAYOUTS = {
    'rgb8': _Layout('u1', 3),
    'bgr8': _Layout('u1', 3),
    '8UC3': _Layout('u1', 3),
    'rgba8': _Layout('u1', 4),
    'bgra8': _Layout('u1', 4),
    'mono8': _Layout('u1', 1),
    '8UC1': _Layout('u1', 1),
    'mono16': _Layout('u2', 1),
    '16UC1': _Layout('u2', 1),
    'bayer_rggb8': _Layout('u1', 1),
    'bayer_bggr8': _Layout('u1', 1),
    'bayer_gbrg8': _Layout('u1', 1),
    'bayer_grbg8': _Layout('u1', 1),
    'yuv422': _Layout('u1', 2),
    'uyvy': _Layout('u1', 2),
    'yuv422_yuy2': _Layout('u1', 2),
    'yuyv': _Layout('u1', 2),
}

# The red, green and blue channels in the last axis. 8UC3 is BGR, as in OpenCV.
_RGB_ORDER = {
    'rgb8': slice(0, 3),
    'bgr8': slice(None, None, -1),
    '8UC3': slice(None, None, -1),
    'rgba8': slice(0, 3),
    'bgra8': slice(2, None, -1),
}

# OpenCV names a Bayer pattern by its second row.
_TO_RGB_CODES = {
    'bayer_rggb8': 'COLOR_BayerBG2RGB',
    'bayer_bggr8': 'COLOR_BayerRG2RGB',
    'bayer_gbrg8': 'COLOR_BayerGR2RGB',
    'bayer_grbg8': 'COLOR_BayerGB2RGB',
    'yuv422': 'COLOR_YUV2RGB_UYVY',
    'uyvy': 'COLOR_YUV2RGB_UYVY',
    'yuv422_yuy2': 'COLOR_YUV2RGB_YUYV',
    'yuyv': 'COLOR_YUV2RGB_YUYV',
}

_LUMA_CHANNEL = {'yuv422': 1, 'uyvy': 1, 'yuv422_yuy2': 0, 'yuyv': 0}


def stamp_ns(header: Any) -> int:
    """Return a header's stamp in nanoseconds; 0, which is not a valid stamp, if malformed."""
    seconds, nanoseconds = header.stamp.sec, header.stamp.nanosec
    if not 0 <= nanoseconds < 1_000_000_000:
        return 0
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def to_rgb(msg: Any) -> np.ndarray:
    """Return the image as RGB uint8 `[H, W, 3]`.

    Packed colour and monochrome images are views of the message, possibly with negative or zero
    strides; Bayer and YUV images are converted.

    Raises:
        SartmError: the encoding is unknown or has more than 8 bits, the sizes are inconsistent, or
            a compressed image is damaged.
    """
    msg = _raw(msg)
    if msg.encoding not in _LAYOUTS:
        return _convert_with_cv_bridge(msg, 'rgb8')
    view = _view(msg)
    if msg.encoding in _RGB_ORDER:
        return view[:, :, _RGB_ORDER[msg.encoding]]
    if msg.encoding in _TO_RGB_CODES:
        return _convert(view, _TO_RGB_CODES[msg.encoding], msg)
    if view.dtype != np.uint8:
        raise SartmError(
            f'the RGB image has encoding {msg.encoding!r}; expected an 8-bit one. '
            'Are the two topics exchanged?'
        )
    return np.broadcast_to(view, (*view.shape[:2], 3))


def to_thermal(msg: Any) -> np.ndarray:
    """Return the image as uint8 or uint16 `[H, W]` in native byte order; of colours the luma.

    Monochrome images and the luma of YUV are views of the message.

    Raises:
        SartmError: the encoding is unknown, the sizes are inconsistent, or a compressed image is
            damaged.
    """
    msg = _raw(msg)
    if msg.encoding not in _LAYOUTS:
        image = _convert_with_cv_bridge(msg, 'passthrough')
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise _unknown_encoding(msg)
        return image
    view = _view(msg)
    if msg.encoding in _RGB_ORDER:
        return _convert(view[:, :, _RGB_ORDER[msg.encoding]], 'COLOR_RGB2GRAY', msg)
    if msg.encoding.startswith('bayer'):
        return _convert(view, _TO_RGB_CODES[msg.encoding].replace('RGB', 'GRAY'), msg)
    return view[:, :, _LUMA_CHANNEL.get(msg.encoding, 0)]


def from_numpy(image: np.ndarray, encoding: str, header: Any) -> Any:
    """Return a `sensor_msgs/Image` of uint8 `[H, W]` ('mono8') or `[H, W, 3]` ('rgb8')."""
    from sensor_msgs.msg import Image

    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding)
    message.step = width * (image.shape[2] if image.ndim == 3 else 1)
    # The message's own array is filled: an assigned one is copied again, or checked item by item.
    message.data.frombytes(np.ascontiguousarray(image).data)
    return message


def _raw(msg: Any) -> Any:
    return decompress(msg) if hasattr(msg, 'format') else msg


def _view(msg: Any) -> np.ndarray:
    """Return the pixels as `[H, W, C]`, a view of the message unless its byte order is foreign."""
    layout = _LAYOUTS[msg.encoding]
    dtype = np.dtype(layout.dtype)
    pixel = layout.channels * dtype.itemsize
    if msg.height < 1 or msg.width < 1:
        raise SartmError(
            f'the image is {msg.width}x{msg.height} pixels; expected at least one pixel'
        )
    if msg.step < msg.width * pixel or msg.step % dtype.itemsize:
        raise SartmError(
            f'the image has a step of {msg.step} bytes; expected at least {msg.width * pixel} '
            f'for {msg.width} pixels of {msg.encoding}'
        )
    if len(msg.data) != msg.step * msg.height:
        raise SartmError(
            f'the image holds {len(msg.data)} bytes; expected {msg.step * msg.height} '
            f'(step {msg.step} x height {msg.height})'
        )
    view: np.ndarray = np.ndarray(
        (msg.height, msg.width, layout.channels),
        dtype,
        buffer=np.frombuffer(msg.data, dtype=np.uint8),
        strides=(msg.step, pixel, dtype.itemsize),
    )
    if dtype.itemsize > 1 and bool(msg.is_bigendian) != (sys.byteorder == 'big'):
        view = view.byteswap()
    return view


def _convert(view: np.ndarray, code: str, msg: Any) -> np.ndarray:
    import cv2

    try:
        return cv2.cvtColor(np.ascontiguousarray(view), getattr(cv2, code))
    except cv2.error as error:
        raise SartmError(
            f'a {msg.width}x{msg.height} image cannot be converted from {msg.encoding}; '
            'expected an even width'
        ) from error


def _convert_with_cv_bridge(msg: Any, desired: str) -> np.ndarray:
    """Convert an encoding that this module does not know with `cv_bridge`, if installed."""
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError:
        raise _unknown_encoding(msg) from None
    try:
        return bridge.imgmsg_to_cv2(msg, desired_encoding=desired)
    except Exception as error:
        raise _unknown_encoding(msg) from error


def _unknown_encoding(msg: Any) -> SartmError:
    return SartmError(
        f'image encoding {msg.encoding!r} is not supported; expected one of {", ".join(_LAYOUTS)}'
    )
