"""`sensor_msgs/CompressedImage` to the fields of `sensor_msgs/Image`, and numpy back into one.

JPEG and PNG, with the format strings of `image_transport`'s `compressed`: 'jpeg', 'png', or
'RAW; jpeg compressed PACKED', where RAW is the encoding of the image before it was compressed and
PACKED that of the array that was handed to OpenCV's encoder, e.g. 'rgb8; jpeg compressed bgr8'.
Only `compress` needs ROS.
"""

from __future__ import annotations

import array
import sys
from typing import Any, NamedTuple

import numpy as np

from sartm_model.errors import SartmError

MAX_PIXELS = 2**26
"""8192 x 8192: a few bytes can claim any size, and the decoder believes them."""

_JPEG, _JPEG_SCAN, _JPEG_END = b'\xff\xd8\xff', b'\xff\xda', b'\xff\xd9'
_JPEG_NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables among the frame headers' markers
_PNG, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND'

_ENCODINGS = {
    (np.uint8, 1): 'mono8',
    (np.uint8, 3): 'bgr8',
    (np.uint8, 4): 'bgra8',
    (np.uint16, 1): 'mono16',
}


class Decompressed(NamedTuple):
    """An image with the fields of `sensor_msgs/Image` that are read."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray


def decompress(msg: Any) -> Decompressed:
    """The image in a `CompressedImage`; 16-bit PNG keeps its 16 bits.

    Colours come as image_transport gives them: the file's own, or exchanged where the format says
    that the encoder was handed something else than BGR. A Bayer pattern stays one.

    Raises:
        SartmError: it is neither JPEG nor PNG, is not whole or is damaged, claims more than
            `MAX_PIXELS`, or has a kind of pixel that is not read.
    """
    import cv2

    data = np.frombuffer(msg.data, dtype=np.uint8)
    _check_whole(data, msg.format)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise SartmError(f'a compressed image ({msg.format!r}, {data.size} bytes) is damaged')
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    encoding = _ENCODINGS.get((pixels.dtype.type, channels))
    if encoding is None:
        raise SartmError(
            f'a compressed image ({msg.format!r}) has {channels} channels of {pixels.dtype}; '
            'expected 8-bit grey or colour, or 16-bit grey'
        )
    raw, _, packed = msg.format.partition(';')
    if encoding == 'bgr8' and packed and 'compressed bgr' not in packed:
        encoding = 'rgb8'
    if encoding == 'mono8' and raw.startswith('bayer_'):
        encoding = raw.strip()
    height, width = pixels.shape[:2]
    bytes_ = pixels.reshape(-1).view(np.uint8)
    step = pixels.strides[0]
    return Decompressed(msg.header, height, width, encoding, sys.byteorder == 'big', step, bytes_)


def compress(image: np.ndarray, kind: str, header: Any) -> Any:
    """A `CompressedImage` of uint8 `[H, W]` or RGB `[H, W, 3]`; `kind` is 'png' or 'jpeg'."""
    import cv2
    from sensor_msgs.msg import CompressedImage

    colour = image.ndim == 3
    # OpenCV's own settings: of PNG a compression level asked for takes several times as long.
    done, encoded = cv2.imencode(f'.{kind}', image[..., ::-1] if colour else image)
    if not done:
        raise SartmError(f'an image of {image.shape} cannot be compressed as {kind}')
    raw, packed = ('rgb8', 'bgr8') if colour else ('mono8', 'mono8')
    message = CompressedImage(header=header, format=f'{raw}; {kind} compressed {packed}')
    data = array.array('B')  # see `images.from_numpy`
    data.frombytes(encoded.data)
    message.data = data
    return message


def _check_whole(data: np.ndarray, format_: str) -> None:
    """Refuse what is no JPEG or PNG from its beginning to its end.

    Some releases of OpenCV decode the upper part of a truncated JPEG and say nothing.
    """
    content = data.tobytes()
    if 'compressedDepth' in format_:
        raise SartmError(
            "a compressed image has format 'compressedDepth', a depth image; expected jpeg or png. "
            'Name the topic that ends in /compressed'
        )
    if content.startswith(_JPEG):
        # A thumbnail at the front has an end of its own, before the image's last scan.
        whole = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
    elif content.startswith(_PNG):
        whole = content.rfind(_PNG_END) > 0
    else:
        raise SartmError(
            f'a compressed image ({format_!r}, {len(content)} bytes) is neither JPEG nor PNG; '
            'expected format jpeg or png'
        )
    if not whole:
        raise SartmError(
            f'a compressed image ({format_!r}, {len(content)} bytes) is cut off: '
            'its end marker is missing'
        )
    size = _jpeg_size(content) if content.startswith(_JPEG) else _png_size(content)
    if size is None:
        raise SartmError(f'a compressed image ({format_!r}, {len(content)} bytes) is damaged')
    width, height = size
    if width * height > MAX_PIXELS:
        raise SartmError(
            f'a compressed image ({format_!r}, {len(content)} bytes) claims {width}x{height} '
            f'pixels; expected at most {MAX_PIXELS}'
        )


def _png_size(content: bytes) -> tuple[int, int] | None:
    """Width and height by the header, which is the first chunk."""
    if content[12:16] != b'IHDR':
        return None
    return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Width and height by the frame header, which comes after segments that tell their length."""
    at = len(_JPEG) - 1
    while content[at : at + 1] == b'\xff' and at + 9 <= len(content):
        marker = content[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME:
            height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
            return int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
    return None
