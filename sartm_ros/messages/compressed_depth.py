"""Decodes depth images of `image_transport`'s `compressedDepth` to the fields of an `Image`.

Such a `CompressedImage` has the format 'ENCODING; compressedDepth' or 'ENCODING; compressedDepth
png'. Its data begin with 12 bytes, a number that is not used here and two floats A and B, and go
on with a PNG of 16 bits: millimetres of 16UC1 or mono16, or of 32FC1 the inverse depth
q = A / metres + B, rounded, where q = 0 is no reading.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_ros.messages.compressed import as_message, decode_file
from sartm_ros.messages.encodings import ImageFields

TRANSPORT = 'compressedDepth'

_HEADER = struct.Struct('<iff')


def decompress_depth(msg: Any) -> ImageFields:
    """Decode a `CompressedImage` of the transport `compressedDepth`.

    Raises:
        SartmError: it holds another format than PNG, is truncated or damaged, or is not of 16UC1,
            mono16 or 32FC1.
    """
    encoding, _, transport = msg.format.partition(';')
    if 'rvl' in transport:
        raise SartmError(
            f'a depth image has format {msg.format!r}; expected png (a parameter of the publisher '
            f'that ends in {TRANSPORT}.format)'
        )
    data = np.frombuffer(msg.data, np.uint8)
    if data.size < _HEADER.size:
        raise SartmError(
            f'a depth image ({msg.format!r}) has {data.size} bytes; expected {_HEADER.size} bytes '
            'and a PNG'
        )
    counts = decode_file(data[_HEADER.size :], msg.format)
    if (
        encoding not in ('16UC1', 'mono16', '32FC1')
        or counts.dtype != np.uint16
        or counts.ndim != 2
    ):
        raise SartmError(
            f'a depth image has format {msg.format!r} and a PNG of {counts.dtype} {counts.shape}; '
            'expected 16UC1, mono16 or 32FC1, and one channel of 16 bits'
        )
    if encoding != '32FC1':
        return as_message(counts, encoding, msg.header)
    _, numerator, offset = _HEADER.unpack(data[: _HEADER.size].tobytes())
    inverse = counts.astype(np.float32) - np.float32(offset)
    no_reading = (counts == 0) | (inverse <= 0)
    with np.errstate(over='ignore', invalid='ignore'):  # a damaged header may have any numbers
        metres = np.float32(numerator) / np.where(no_reading, np.float32(np.nan), inverse)
    return as_message(metres, encoding, msg.header)
