"""Reads and writes serialised image messages (OMG CDR, XCDR1) without rclpy's message classes.

rclpy copies the pixels once more when it deserialises a message, and twice more when it serialises
one. Here the pixels read are a view of the serialised bytes, and writing copies them once.

A serialised message begins with two bytes for the byte order and two bytes of options. Each number
after them is aligned to its size, counted from the fifth byte. A string is its length, which counts
a terminating zero, followed by its bytes; a sequence is its length followed by its items.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from sartm_model.errors import SartmError
from sartm_ros.messages.encodings import ImageFields

_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}
_ORDER = '<' if sys.byteorder == 'little' else '>'
_BEGIN = next(mark for mark, order in _ORDERS.items() if order == _ORDER) + b'\x00\x00'


class CompressedImageFields(NamedTuple):
    """The fields of a `sensor_msgs/CompressedImage`. `data` is a view of the serialised message."""

    header: Header
    format: str
    data: memoryview


def read_image(message: bytes) -> ImageFields:
    """Read a `sensor_msgs/Image`; raise SartmError if it is truncated or of another type."""
    reader = _Reader(message)
    header = reader.header()
    height, width = reader.numbers('II')
    encoding = reader.text('encoding')
    (is_bigendian,) = reader.numbers('B')
    (step,) = reader.numbers('I')
    return ImageFields(header, height, width, encoding, is_bigendian, step, reader.rest())


def read_compressed_image(message: bytes) -> CompressedImageFields:
    """Read a `sensor_msgs/CompressedImage`; raise SartmError as `read_image` does."""
    reader = _Reader(message)
    return CompressedImageFields(reader.header(), reader.text('format'), reader.rest())


def write_image(image: np.ndarray, encoding: str, header: Any) -> bytes:
    """Serialise a `sensor_msgs/Image`.

    Args:
        image: the pixels, `[H, W]` or `[H, W, C]`, of the type that the encoding names.
        encoding: such as 'mono8' or 'rgb8'.
        header: of the message.
    """
    height, width = image.shape[:2]
    begin = bytearray(_BEGIN)
    begin += struct.pack(f'{_ORDER}iI', header.stamp.sec, header.stamp.nanosec)
    _put_text(begin, header.frame_id)
    _align(begin)
    begin += struct.pack(f'{_ORDER}II', height, width)
    _put_text(begin, encoding)
    begin.append(sys.byteorder == 'big')
    _align(begin)
    begin += struct.pack(f'{_ORDER}II', image.nbytes // height, image.nbytes)
    return b''.join((begin, np.ascontiguousarray(image).data))


def _align(message: bytearray) -> None:
    message += bytes(-len(message) % 4)  # the four bytes at the front do not affect alignment


def _put_text(message: bytearray, text: str) -> None:
    _align(message)
    encoded = text.encode() + b'\x00'
    message += struct.pack(f'{_ORDER}I', len(encoded)) + encoded


class _Reader:
    """Reads the fields of a serialised message one after the other."""

    def __init__(self, message: bytes) -> None:
        order = _ORDERS.get(message[:2])
        if order is None or len(message) < 4:
            raise SartmError(
                f'a message of {len(message)} bytes begins with {message[:4].hex() or "nothing"}; '
                'expected plain CDR, which begins with 0000 or 0001 and two bytes of options'
            )
        self._message, self._order, self._at = message, order, 4

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """Read numbers of one size, given their format characters of `struct`."""
        size = struct.calcsize(kinds[0])
        start = self._at + -self._at % size
        self._need(start, size * len(kinds), 'a number')
        return struct.unpack_from(self._order + kinds, self._message, start)

    def text(self, name: str) -> str:
        """Read a string; some writers omit the terminating zero, also that of an empty string."""
        (length,) = self.numbers('I')
        start = self._at
        self._need(start, length, name)
        return self._message[start : start + length].rstrip(b'\x00').decode(errors='replace')

    def header(self) -> Header:
        """Read a `std_msgs/Header`."""
        sec, nanosec = self.numbers('iI')
        return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=self.text('frame_id'))

    def rest(self) -> memoryview:
        """Read a sequence of bytes, the last field; padding may follow it."""
        (length,) = self.numbers('I')
        start = self._at
        self._need(start, length, 'data')
        return memoryview(self._message)[start : start + length]

    def _need(self, start: int, length: int, what: str) -> None:
        """Advance past `length` bytes from `start`; raise SartmError if there are fewer."""
        if start + length > len(self._message):
            raise SartmError(
                f'a serialised image of {len(self._message)} bytes is truncated: {what} takes '
                f'{length} bytes from byte {start} on. Is the publisher of another message type?'
            )
        self._at = start + length
