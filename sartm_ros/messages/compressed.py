"""Decodes `sensor_msgs/CompressedImage` to the fields of `sensor_msgs/Image`, and encodes arrays.

The formats are JPEG and PNG, with the format strings of `image_transport`'s `compressed`: 'jpeg',
'png', or 'RAW; jpeg compressed PACKED', where RAW is the encoding of the image before compression
and PACKED that of the array given to OpenCV's encoder, for example 'rgb8; jpeg compressed bgr8'.
Only `compress` needs ROS.
"""

from __future__ import annotations

import array
import io
import re
import sys
from typing import Any

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from sartm_model.errors import SartmError
from sartm_ros.messages.encodings import ImageFields

MAX_PIXELS = 2**26
"""8192 x 8192. A file of a few bytes can claim any size, for which the decoder allocates memory."""

_JPEG, _JPEG_SCAN, _JPEG_END = b'\xff\xd8\xff', b'\xff\xda', b'\xff\xd9'
_PNG, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND'

_MORE_THAN_8_BITS = re.compile(r'(mono|rgba?|bgra?|bayer_[rgb]{4})16$|(16|32|64)[USF]C')

_ENCODINGS = {
    (np.uint8, 1): 'mono8',
    (np.uint8, 3): 'bgr8',
    (np.uint8, 4): 'bgra8',
    (np.uint16, 1): 'mono16',
    (np.uint16, 3): 'bgr16',
    (np.uint16, 4): 'bgra16',
}


def decompress(msg: Any) -> ImageFields:
    """Decode a `CompressedImage`; a 16-bit PNG keeps its 16 bits.

    As in image_transport the encoding of colours is bgr8 or bgr16, or rgb8 or rgb16 if the format
    says that the encoder was not given BGR. A Bayer pattern remains one, and so does 8UC3, whose
    channels have no names.

    Raises:
        SartmError: it is neither JPEG nor PNG, is truncated or damaged, claims more than
            `MAX_PIXELS`, or has an unsupported number of channels or bits.
    """
    if 'compressedDepth' in msg.format:
        raise SartmError(
            "a compressed image has format 'compressedDepth', a depth image; expected jpeg or png. "
            'Name the topic that ends in /compressed'
        )
    pixels = decode_file(np.frombuffer(msg.data, dtype=np.uint8), msg.format)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    encoding = _ENCODINGS.get((pixels.dtype.type, channels))
    if encoding is None:
        raise SartmError(
            f'a compressed image ({msg.format!r}) has {channels} channels of {pixels.dtype}; '
            'expected grey or colour of 8 or 16 bits'
        )
    raw, _, packed = msg.format.partition(';')
    raw = raw.strip()
    if (encoding, raw) == ('bgr8', '8UC3'):
        encoding = raw
    elif raw.startswith('bayer_') and channels == 1:
        encoding = raw.rstrip('0123456789') + encoding.removeprefix('mono')  # with the bits it has
    elif encoding in ('bgr8', 'bgr16') and packed and 'compressed bgr' not in packed:
        encoding = encoding.replace('bgr', 'rgb')
    return as_message(pixels, encoding, msg.header)


def decode_file(content: np.ndarray, format_: str) -> np.ndarray:
    """Decode a JPEG or PNG file, given as bytes, to `[H, W]` or `[H, W, C]`, colours as BGR.

    Raises SartmError as `decompress` does, except for the number of channels and bits; `format_`
    is part of the text.
    """
    import cv2

    _check(content.tobytes(), format_)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise SartmError(f'a compressed image ({format_!r}, {content.size} bytes) is damaged')
    return pixels


def as_message(pixels: np.ndarray, encoding: str, header: Any) -> ImageFields:
    """Return the fields of the message that has these pixels; they are not copied."""
    height, width = pixels.shape[:2]
    bytes_ = pixels.reshape(-1).view(np.uint8)
    step = pixels.strides[0]
    return ImageFields(header, height, width, encoding, sys.byteorder == 'big', step, bytes_)


def check_keeps_counts(format_: str, image: ImageFields) -> None:
    """Raise SartmError if numbers of 16 or 32 bits were cut to 8 bits, as by JPEG.

    Args:
        format_: of the `CompressedImage`, which begins with the encoding before compression.
        image: what it was decoded to.
    """
    before = format_.partition(';')[0].strip()
    if _MORE_THAN_8_BITS.match(before) and image.encoding.endswith('8'):
        raise SartmError(
            f'a compressed image has format {format_!r}: counts of {before} were cut to 8 bits, as '
            'JPEG does; expected png, which keeps them (a parameter of the publisher that ends in '
            'compressed.format), or the topic without /compressed'
        )


def compress(image: np.ndarray, kind: str, header: Any) -> Any:
    """Return a `CompressedImage` of uint8 `[H, W]` or RGB `[H, W, 3]`.

    Args:
        image: the pixels.
        kind: 'png' or 'jpeg'.
        header: of the message.
    """
    import cv2
    from sensor_msgs.msg import CompressedImage

    colour = image.ndim == 3
    # OpenCV's own settings: of PNG a compression level asked for takes several times as long.
    done, encoded = cv2.imencode(f'.{kind}', image[..., ::-1] if colour else image)
    if not done:
        raise SartmError(f'an image of {image.shape} cannot be compressed as {kind}')
    raw, packed = ('rgb8', 'bgr8') if colour else ('mono8', 'mono8')
    message = CompressedImage(header=header, format=f'{raw}; {kind} compressed {packed}')
    data = array.array('B')  # any other type is copied again, or checked item by item
    data.frombytes(encoded.data)
    message.data = data
    return message


def _check(content: bytes, format_: str) -> None:
    """Raise SartmError for what is not a complete JPEG or PNG of at most `MAX_PIXELS`.

    Some releases of OpenCV decode the upper part of a truncated JPEG without an error.
    """
    described = f'a compressed image ({format_!r}, {len(content)} bytes)'
    if content.startswith(_JPEG):
        # A thumbnail at the front has an end marker of its own, before the image's last scan.
        complete = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
        read_header: Any = JpegImageFile
    elif content.startswith(_PNG):
        complete = content.rfind(_PNG_END) > 0
        read_header = PngImageFile
    else:
        raise SartmError(f'{described} is neither JPEG nor PNG; expected format jpeg or png')
    if not complete:
        raise SartmError(f'{described} is truncated: its end marker is missing')
    try:
        width, height = read_header(io.BytesIO(content)).size
    except (OSError, SyntaxError, ValueError) as error:
        raise SartmError(f'{described} is damaged') from error
    if width * height > MAX_PIXELS:
        raise SartmError(
            f'{described} claims {width}x{height} pixels; expected at most {MAX_PIXELS}'
        )
