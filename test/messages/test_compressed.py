"""Compressed images, encoded by OpenCV and by Pillow, against the pixels they were made of."""

from __future__ import annotations

import io
import re
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from sartm_model.errors import SartmError
from sartm_ros.messages.compressed import compress
from sartm_ros.messages.images import to_rgb, to_thermal


def message(data: bytes, format_: str) -> SimpleNamespace:
    """The fields of sensor_msgs/CompressedImage."""
    return SimpleNamespace(header=None, data=data, format=format_)


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    """By Pillow, which is told the colours as they are."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def color() -> np.ndarray:
    """Smooth, so that JPEG changes it little; red is far from blue."""
    y, x = np.indices((48, 64))
    return np.stack([255 - 3 * x, 2 * y + x, y], axis=-1).astype(np.uint8)


TRUE_COLOURS = ['', 'rgb8; {} compressed bgr8', 'bgr8; {} compressed bgr8', '8UC3; {} compressed ']
EXCHANGED = ['rgb8; {} compressed rgb8', 'bgr8; {} compressed ']


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
@pytest.mark.parametrize('format_', TRUE_COLOURS + EXCHANGED)
def test_colour_order(color, kind, format_):
    """As image_transport reads it: what follows 'compressed' is what the encoder took for BGR.

    It hands 8UC3 to the encoder as it is, and raw images of that encoding are read as BGR.
    """
    # An encoder that is handed RGB in place of BGR writes a file with red and blue exchanged.
    written = color[..., ::-1] if format_ in EXCHANGED else color
    options = {'quality': 98, 'subsampling': 0} if kind == 'jpeg' else {}
    msg = message(encoded(np.ascontiguousarray(written), kind, **options), format_.format(kind))
    if not format_:
        msg.format = kind
    tolerance = 6 if kind == 'jpeg' else 0
    np.testing.assert_allclose(to_rgb(msg).astype(int), color, atol=tolerance)
    luma = color @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(to_thermal(msg), luma, atol=tolerance + 1)


@pytest.mark.parametrize(
    'format_', ['png', 'mono16; png compressed ', '16UC1; png compressed mono16']
)
def test_sixteen_bit_png_keeps_its_counts(format_):
    counts = np.random.default_rng(0).integers(0, 2**16, (37, 21)).astype(np.uint16)
    thermal = to_thermal(message(encoded(counts, 'png'), format_))
    assert thermal.dtype == np.uint16
    np.testing.assert_array_equal(thermal, counts)


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_grey_serves_as_both(color, kind):
    grey = np.ascontiguousarray(color[..., 0])
    msg = message(encoded(grey, kind), f'mono8; {kind} compressed ')
    tolerance = 4 if kind == 'jpeg' else 0
    np.testing.assert_allclose(to_thermal(msg).astype(int), grey, atol=tolerance)
    np.testing.assert_allclose(to_rgb(msg).astype(int), np.stack([grey] * 3, -1), atol=tolerance)


def test_an_alpha_channel_is_dropped(color):
    rgba = np.dstack([color, color[..., :1]])
    np.testing.assert_array_equal(to_rgb(message(encoded(rgba, 'png'), 'png')), color)


def test_a_bayer_pattern_stays_one():
    tile = np.array([[200, 100], [100, 50]], np.uint8)
    msg = message(encoded(np.tile(tile, (4, 5)), 'png'), 'bayer_rggb8; png compressed ')
    np.testing.assert_array_equal(to_rgb(msg), np.broadcast_to([200, 100, 50], (8, 10, 3)))
    counts = 256 * np.tile(tile, (4, 5)).astype(np.uint16) + 7
    png = cv2.imencode('.png', counts)[1].tobytes()
    msg = message(png, 'bayer_rggb16; png compressed ')
    np.testing.assert_array_equal(to_rgb(msg), np.broadcast_to([200, 100, 50], (8, 10, 3)))

    eight_bits = message(encoded(np.tile(tile, (4, 5)), 'png'), 'bayer_rggb16; png compressed ')
    np.testing.assert_array_equal(to_rgb(eight_bits), to_rgb(msg))


def test_a_picture_is_not_turned_by_its_exif(color):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    msg = message(encoded(color, 'jpeg', quality=98, exif=exif), 'jpeg')
    assert to_rgb(msg).shape == color.shape


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_what_is_cut_off_is_refused(color, kind, share):
    whole = encoded(color, kind)
    with pytest.raises(SartmError, match=f"'{kind}', .* (truncated|damaged)"):
        to_rgb(message(whole[: int(len(whole) * share)], kind))


def test_a_thumbnail_does_not_pass_for_the_end(color):
    """A JPEG inside an application segment, as cameras put it there, has an end marker too."""
    whole, small = encoded(color, 'jpeg'), encoded(color[::8, ::8], 'jpeg')
    both = whole[:2] + b'\xff\xe1' + struct.pack('>H', len(small) + 2) + small + whole[2:]
    assert to_rgb(message(both, 'jpeg')).shape == color.shape
    with pytest.raises(SartmError, match='truncated'):
        to_rgb(message(both[:-20], 'jpeg'))


def test_padding_after_the_end_is_passed_over(color):
    assert to_rgb(message(encoded(color, 'jpeg') + bytes(100), 'jpeg')).shape == color.shape


@pytest.mark.parametrize(
    ('data', 'format_', 'fault'),
    [
        (b'', 'jpeg', "'jpeg', 0 bytes) is neither JPEG nor PNG"),
        (b'nonsense' * 20, 'rgb8; jpeg compressed bgr8', 'is neither JPEG nor PNG'),
        (bytes(50), 'h264', "'h264', 50 bytes) is neither"),
        (b'\xff\xd8\xff\xe0' + bytes(60) + b'\xff\xd9', 'jpeg', 'is damaged'),
        (b'\x89PNG\r\n\x1a\n' + bytes(40) + b'IEND', 'png', 'is damaged'),
        (bytes(12) + b'\x89PNG\r\n\x1a\n', '16UC1; compressedDepth png', "'compressedDepth'"),
    ],
)
def test_rubbish_says_what_is_wrong(data, format_, fault):
    for convert in (to_rgb, to_thermal):
        with pytest.raises(SartmError, match=re.escape(fault)):
            convert(message(data, format_))


def test_a_damaged_png_is_refused(color):
    whole = bytearray(encoded(color, 'png'))
    whole[len(whole) // 2] ^= 0x55  # its checksum no longer fits
    with pytest.raises(SartmError, match='is damaged'):
        to_rgb(message(bytes(whole), 'png'))


@pytest.mark.parametrize('packed', ['bgr16', 'rgb16'])
def test_sixteen_bit_colour_keeps_its_upper_eight_bits(color, packed):
    deep = color.astype(np.uint16) * 256 + 77
    # OpenCV takes what it is given for BGR.
    data = cv2.imencode('.png', deep[..., ::-1] if packed == 'bgr16' else deep)[1].tobytes()
    msg = message(data, f'rgb16; png compressed {packed}')
    np.testing.assert_array_equal(to_rgb(msg), color)


def test_thermal_counts_are_not_an_rgb_image(color):
    grey = cv2.imencode('.png', color[..., 0].astype(np.uint16))[1].tobytes()
    with pytest.raises(SartmError, match='topics exchanged'):
        to_rgb(message(grey, 'mono16; png compressed '))


@pytest.mark.parametrize(
    'format_',
    [
        '16UC1; jpeg compressed ',
        '16UC1; jpeg compressed mono8',
        'mono16; jpeg compressed',
        '16SC1; jpeg compressed ',
        '32FC1; jpeg compressed',
    ],
)
def test_counts_that_a_jpeg_has_cut_to_eight_bits_are_refused(color, format_):
    msg = message(encoded(color[..., 0], 'jpeg'), format_)
    with pytest.raises(SartmError, match='were cut to 8 bits, as JPEG does; expected png') as error:
        to_thermal(msg)
    assert format_ in str(error.value)
    assert to_thermal(message(msg.data, 'mono8; jpeg compressed mono8')).shape == (48, 64)


def test_images_come_back_as_they_went(color):
    pytest.importorskip('sensor_msgs', reason='needs ROS 2 (sensor_msgs)')
    from std_msgs.msg import Header

    header = Header(frame_id='camera')
    labels = np.random.default_rng(1).integers(0, 10, (48, 64), dtype=np.uint8)
    msg = compress(labels, 'png', header)
    assert msg.header == header
    assert msg.format == 'mono8; png compressed mono8'
    assert bytes(msg.data)[:4] == b'\x89PNG'
    np.testing.assert_array_equal(to_thermal(msg), labels)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(bytes(msg.data)))), labels)
    msg = compress(color, 'jpeg', header)
    assert msg.format == 'rgb8; jpeg compressed bgr8'
    np.testing.assert_allclose(to_rgb(msg).astype(int), color, atol=8)
    seen = np.array(Image.open(io.BytesIO(bytes(msg.data))))
    np.testing.assert_allclose(seen.astype(int), color, atol=8)
