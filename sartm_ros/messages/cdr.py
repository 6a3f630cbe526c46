"""Serialised images as they travel (OMG CDR, XCDR1), read and written without rclpy's messages.

To make a message of them rclpy goes over the pixels once more on the way in, and twice on the way
out. Here they are a view of the bytes that came in, and one copy makes the bytes that go out.

A serialised message begins with two bytes that tell the byte order, and two of options. Each number
after them is aligned to its size, counted from the fifth byte. A string is its length with a zero
at the end, and so many bytes; a sequence is its length and its items.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from sartm_model.errors import SartmError

_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}
_ORDER = '<' if sys.byteorder == 'little' else '>'
_BEGIN = next(mark for mark, order in _ORDERS.items() if order == _ORDER) + b'\x00\x00'


class RawImage(NamedTuple):
    """The fields of a `sensor_msgs/Image`; `data` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


class RawCompressedImage(NamedTuple):
    """Likewise those of a `sensor_msgs/CompressedImage`."""

    header: Header
    format: str
    data: memoryview


def read_image(message: bytes) -> RawImage:
    """A serialised `sensor_msgs/Image`; raises SartmError where it is cut off or no such thing."""
    reader = _Reader(message)
    header = reader.header()
    height, width = reader.numbers('II')
    encoding = reader.text('encoding')
    (is_bigendian,) = reader.numbers('B')
    (step,) = reader.numbers('I')
    return RawImage(header, height, width, encoding, is_bigendian, step, reader.rest())


def read_compressed_image(message: bytes) -> RawCompressedImage:
    """A serialised `sensor_msgs/CompressedImage`; raises as `read_image` does."""
    reader = _Reader(message)
    return RawCompressedImage(reader.header(), reader.text('format'), reader.rest())


def write_image(image: np.ndarray, encoding: str, header: Any) -> bytes:
    """What `images.from_numpy` makes of uint8 `[H, W]` or `[H, W, 3]`, serialised."""
    height, width = image.shape[:2]
    step = width * (image.shape[2] if image.ndim == 3 else 1)
    begin = bytearray(_BEGIN)
    begin += struct.pack(f'{_ORDER}iI', header.stamp.sec, header.stamp.nanosec)
    _put_text(begin, header.frame_id)
    _align(begin)
    begin += struct.pack(f'{_ORDER}II', height, width)
    _put_text(begin, encoding)
    begin.append(sys.byteorder == 'big')
    _align(begin)
    begin += struct.pack(f'{_ORDER}II', step, image.nbytes)
    return b''.join((begin, np.ascontiguousarray(image).data))


def _align(message: bytearray) -> None:
    message += bytes(-len(message) % 4)  # the four bytes at the front do not change it


def _put_text(message: bytearray, text: str) -> None:
    _align(message)
    encoded = text.encode() + b'\x00'
    message += struct.pack(f'{_ORDER}I', len(encoded)) + encoded


class _Reader:
    """Goes through a message from its front."""

    def __init__(self, message: bytes) -> None:
        order = _ORDERS.get(message[:2])
        if order is None or len(message) < 4:
            raise SartmError(
                f'a message of {len(message)} bytes begins with {message[:4].hex() or "nothing"}; '
                'expected plain CDR, which begins with 0000 or 0001 and two bytes of options'
            )
        self._message, self._order, self._at = message, order, 4

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """Numbers of one size, by their letters in `struct`."""
        size = struct.calcsize(kinds[0])
        start = self._at + -self._at % size
        self._need(start, size * len(kinds), 'a number')
        return struct.unpack_from(self._order + kinds, self._message, start)

    def text(self, name: str) -> str:
        """A string; some writers leave out the zero at the end, or the whole of an empty one."""
        (length,) = self.numbers('I')
        start = self._at
        self._need(start, length, name)
        return self._message[start : start + length].rstrip(b'\x00').decode(errors='replace')

    def header(self) -> Header:
        """A `std_msgs/Header`."""
        sec, nanosec = self.numbers('iI')
        return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=self.text('frame_id'))

    def rest(self) -> memoryview:
        """A sequence of bytes, the last field; what follows it is filling."""
        (length,) = self.numbers('I')
        start = self._at
        self._need(start, length, 'data')
        return memoryview(self._message)[start : start + length]

    def _need(self, start: int, length: int, what: str) -> None:
        """Go past so many bytes from `start`, if there are as many."""
        if start + length > len(self._message):
            raise SartmError(
                f'a serialised image of {len(self._message)} bytes is cut off: {what} takes '
                f'{length} bytes from byte {start} on. Is the publisher of another message type?'
            )
        self._at = start + length
