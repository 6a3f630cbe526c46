"""The image encodings that are read without `cv_bridge`, and a message's fields and pixels."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from sartm_model.errors import SartmError

_RGB, _BGR, _BGRA = slice(0, 3), slice(None, None, -1), slice(2, None, -1)
_ALL = slice(None)


class ImageFields(NamedTuple):
    """The fields of a `sensor_msgs/Image`; `data` may be a view of a serialised message."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview | np.ndarray


class Layout(NamedTuple):
    """How an encoding stores an image.

    Attributes:
        dtype: of a value, without its byte order.
        channels: values of a pixel.
        colors: the places of red, green and blue in a pixel; None if they are not stored as such.
        to_rgb: OpenCV's conversion to RGB; '' if none is needed.
        luma: the place of the luma in a pixel that `to_rgb` converts from YUV; None for Bayer.
        chroma_below: whether rows of chroma, half as many as the image has, follow those of luma.
    """

    dtype: str
    channels: int
    colors: slice | None = None
    to_rgb: str = ''
    luma: int | None = None
    chroma_below: bool = False


_UYVY = Layout('u1', 2, to_rgb='COLOR_YUV2RGB_UYVY', luma=1)
_YUYV = Layout('u1', 2, to_rgb='COLOR_YUV2RGB_YUYV', luma=0)

LAYOUTS = {
    'rgb8': Layout('u1', 3, _RGB),
    'bgr8': Layout('u1', 3, _BGR),
    'rgba8': Layout('u1', 4, _RGB),
    'bgra8': Layout('u1', 4, _BGRA),
    '8UC3': Layout('u1', 3, _BGR),  # as in OpenCV
    '8UC4': Layout('u1', 4, _BGRA),
    'rgb16': Layout('u2', 3, _RGB),
    'bgr16': Layout('u2', 3, _BGR),
    'rgba16': Layout('u2', 4, _RGB),
    'bgra16': Layout('u2', 4, _BGRA),
    # OpenCV names a Bayer pattern by its second row.
    'bayer_rggb8': Layout('u1', 1, to_rgb='COLOR_BayerBG2RGB'),
    'bayer_bggr8': Layout('u1', 1, to_rgb='COLOR_BayerRG2RGB'),
    'bayer_gbrg8': Layout('u1', 1, to_rgb='COLOR_BayerGR2RGB'),
    'bayer_grbg8': Layout('u1', 1, to_rgb='COLOR_BayerGB2RGB'),
    'bayer_rggb16': Layout('u2', 1, to_rgb='COLOR_BayerBG2RGB'),
    'bayer_bggr16': Layout('u2', 1, to_rgb='COLOR_BayerRG2RGB'),
    'bayer_gbrg16': Layout('u2', 1, to_rgb='COLOR_BayerGR2RGB'),
    'bayer_grbg16': Layout('u2', 1, to_rgb='COLOR_BayerGB2RGB'),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': Layout('u1', 1, to_rgb='COLOR_YUV2RGB_NV12', luma=0, chroma_below=True),
    'nv21': Layout('u1', 1, to_rgb='COLOR_YUV2RGB_NV21', luma=0, chroma_below=True),
    'mono8': Layout('u1', 1),
    '8UC1': Layout('u1', 1),
    'mono16': Layout('u2', 1),
    '16UC1': Layout('u2', 1),
    '16SC1': Layout('i2', 1),
    '32FC1': Layout('f4', 1),
    '32FC3': Layout('f4', 3),
    '32FC5': Layout('f4', 5),
    '8UC24': Layout('u1', 24),
}

THERMAL = tuple(
    name
    for name, layout in LAYOUTS.items()
    if layout.channels == 1 or layout.colors is not None or layout.to_rgb
)
"""The encodings of which a thermal image can be made: of colours, their luma is taken."""

RGB = tuple(
    name
    for name, layout in LAYOUTS.items()
    if layout.colors is not None or layout.to_rgb or (layout.dtype, layout.channels) == ('u1', 1)
)
"""The encodings of which an RGB image can be made; a monochrome one of 8 bits is repeated."""

_COLORS = {
    'rgb8': _RGB,
    'bgr8': _BGR,
    '8UC3': _BGR,
    'rgba8': _RGB,
    'bgra8': _BGRA,
    '8UC4': _BGRA,
    'mono8': _ALL,
    '8UC1': _ALL,
}
_MEASUREMENTS = {'rgb8': _RGB, 'bgr8': _BGR, '8UC3': _RGB}

CHANNELS: dict[str, dict[str, slice]] = {
    'depth': {'16UC1': _ALL, 'mono16': _ALL, '32FC1': _ALL},
    'depth_coded': _COLORS,
    'hha': _MEASUREMENTS,
    'lidar': _COLORS,
    'event': _COLORS,
    'event_voxel3': {'32FC3': _ALL},
    'event_voxel5': {'32FC5': _ALL},
    'polarization': _MEASUREMENTS,
    'light_field': _COLORS,
    'light_field_row': {'8UC24': _ALL},
}
"""The encodings that are read as images of each modality, and the places of the modality's channels
in a pixel, in their order. One channel stands for several that are equal. In 8UC3, whose channels
have no names, colours are in OpenCV's order, BGR; measurements are in that of the modality. RGB and
thermal, which are read from more encodings, have functions of their own in `images`."""


def check_known(name: str) -> None:
    """Raise SartmError if no messages are read as images of a modality."""
    if name not in ('rgb', 'thermal', *CHANNELS):
        raise SartmError(
            f'no message encodings are known for {name} images; add a row to CHANNELS in '
            'sartm_ros/messages/encodings.py'
        )


def pixels(msg: Any, layout: Layout) -> np.ndarray:
    """Return the pixels as `[H, W, C]`, a view of the message unless its byte order is foreign.

    Where chroma follows below, `[H * 3 / 2, W, 1]`.

    Raises:
        SartmError: the sizes in the message are inconsistent.
    """
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
            + (f', and a multiple of {dtype.itemsize}' if dtype.itemsize > 1 else '')
        )
    rows = msg.height
    if layout.chroma_below:
        if msg.height % 2 or msg.width % 2:
            raise SartmError(
                f'a {msg.width}x{msg.height} image has encoding {msg.encoding}; expected an even '
                'width and height'
            )
        rows += msg.height // 2
    if len(msg.data) != msg.step * rows:
        chroma = f', of which {msg.height // 2} rows are chroma' if layout.chroma_below else ''
        raise SartmError(
            f'the image holds {len(msg.data)} bytes; expected {msg.step * rows} '
            f'(step {msg.step} x {rows} rows{chroma})'
        )
    view: np.ndarray = np.ndarray(
        (rows, msg.width, layout.channels),
        dtype,
        buffer=np.frombuffer(msg.data, dtype=np.uint8),
        strides=(msg.step, pixel, dtype.itemsize),
    )
    if dtype.itemsize > 1 and bool(msg.is_bigendian) != (sys.byteorder == 'big'):
        view = view.byteswap()
    return view


def upper_bytes(image: np.ndarray) -> np.ndarray:
    """Return the upper 8 bits of uint16 `[H, W, C]`, a view of an array in native byte order."""
    return image.view(np.uint8)[:, :, int(sys.byteorder == 'little') :: 2]
