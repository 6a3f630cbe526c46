"""Random image messages, valid and corrupt, for the tests that send thousands of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

ENCODINGS = (
    *('rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4', 'rgb16', 'bgr16', 'rgba16', 'bgra16'),
    *('mono8', '8UC1', 'mono16', '16UC1', '16SC1', '32FC1'),
    *('bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8', 'bayer_rggb16', 'bayer_gbrg16'),
    *('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21'),
    *('', 'rgb7', 'jpeg2000', '64FC1', 'mono8 ', 'RGB8', '\u00fc\u4e2d', 'x' * 300),
)
VALID = (
    *(('rgb8', 3), ('mono8', 1), ('mono16', 2), ('rgb16', 6), ('yuyv', 2), ('nv12', 1)),
    *(('16SC1', 2), ('32FC1', 4)),  # of these a random image holds every kind of float
)
SIZES = (0, 1, 2, 3, 47, 48, 49, 64, 192, 65_535, 2**16, 2**31 - 1, 2**31, 2**32 - 1)


@dataclasses.dataclass
class Fields:
    """The fields of sensor_msgs/Image without the header."""

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: int
    data: bytes


def valid_image(rng: np.random.Generator) -> Fields:
    """Return a colour or monochrome image of a few pixels, as a camera sends it."""
    height, width = (int(n) for n in rng.integers(1, 60, 2))
    encoding, pixel = VALID[rng.integers(len(VALID))]
    if encoding in ('yuyv', 'nv12'):
        height, width = 2 * height, 2 * width
    step = width * pixel + int(rng.integers(2)) * 4
    rows = height * 3 // 2 if encoding == 'nv12' else height
    return Fields(encoding, height, width, step, 0, rng.bytes(step * rows))


def corrupt(fields: Fields, rng: np.random.Generator) -> Fields:
    """Return an image with one to three of its fields changed."""
    changes: dict[str, Any] = {}
    for _ in range(rng.integers(1, 4)):
        name = ('encoding', 'height', 'width', 'step', 'is_bigendian', 'data')[rng.integers(6)]
        if name == 'encoding':
            changes[name] = ENCODINGS[rng.integers(len(ENCODINGS))]
        elif name == 'is_bigendian':
            changes[name] = int(rng.integers(256))
        elif name == 'data':
            changes[name] = _other_bytes(fields.data, rng)
        elif rng.integers(2):
            changes[name] = SIZES[rng.integers(len(SIZES))]
        else:
            changes[name] = max(0, getattr(fields, name) + int(rng.integers(-3, 4)))
    return dataclasses.replace(fields, **changes)


def corrupt_file(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file truncated, or with bytes overwritten, removed or appended."""
    at = int(rng.integers(len(data) + 1))
    kind = rng.integers(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        corrupt = bytearray(data)
        for position in rng.integers(len(data), size=rng.integers(1, 20)):
            corrupt[position] = int(rng.integers(256))
        return bytes(corrupt)
    if kind == 2:
        return data[:at] + data[at + int(rng.integers(1, 50)) :]
    return data + rng.bytes(int(rng.integers(1, 50)))


def _other_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    length = (0, 1, len(data) // 2, len(data) - 1, len(data) + 1, 2 * len(data))[rng.integers(6)]
    return rng.bytes(max(0, length))
