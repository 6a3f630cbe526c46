"""Messages of the sensors beside RGB and thermal, against numbers worked out by hand."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_ros.messages import encodings
from sartm_ros.messages.images import to_modality

COLOURED = ('depth_coded', 'lidar', 'event', 'light_field')
MEASURED = ('hha', 'polarization')


def message(pixels, encoding, *, padding=0, big=False) -> SimpleNamespace:
    """The fields of sensor_msgs/Image, of `[H, W, ...]`, whose rows end in rubbish."""
    height, width = pixels.shape[:2]
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = [row.tobytes() + b'\xaa' * padding for row in pixels]
    return SimpleNamespace(
        data=b''.join(rows), height=height, width=width, encoding=encoding, step=len(rows[0]),
        is_bigendian=int(big), header=None,
    )  # fmt: skip


def compressed(data: bytes, format_: str) -> SimpleNamespace:
    """The fields of sensor_msgs/CompressedImage."""
    return SimpleNamespace(header=None, data=data, format=format_)


def png(image: np.ndarray) -> bytes:
    """A PNG file whose pixels are given as OpenCV has them."""
    return cv2.imencode('.png', image)[1].tobytes()


def shares_memory(image: np.ndarray, msg: SimpleNamespace) -> bool:
    return np.shares_memory(image, np.frombuffer(msg.data, np.uint8))


def test_every_modality_is_read_from_some_messages():
    assert set(encodings.CHANNELS) | {'rgb', 'thermal'} == set(MODALITIES)
    assert all(set(names) <= set(encodings.LAYOUTS) for names in encodings.CHANNELS.values())


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('encoding', ['16UC1', 'mono16'])
def test_depth_in_millimetres_is_as_sent(encoding, big):
    depth = np.array([[0, 700, 1234], [5000, 65535, 1]], np.uint16)
    msg = message(depth, encoding, padding=6, big=big)
    found = to_modality(msg, 'depth')
    np.testing.assert_array_equal(found, depth)
    assert found.dtype == np.uint16
    assert shares_memory(found, msg) != big
    MODALITIES['depth'].check(found)


@pytest.mark.parametrize('big', [False, True])
def test_depth_in_metres_becomes_millimetres(big):
    metres = np.array([[0.7, 1.2344, np.nan], [0, np.inf, -np.inf], [70, -2, 5]], np.float32)
    found = to_modality(message(metres, '32FC1', padding=4, big=big), 'depth')
    expected = [[700, 1234, 0], [0, 65535, 0], [65535, 0, 5000]]
    np.testing.assert_array_equal(found, np.array(expected, np.uint16))


def test_depth_in_the_other_unit_is_refused_with_a_hint():
    metres = np.array([[1, 2, 8]], np.uint16)
    with pytest.raises(SartmError, match=r'at most 8; expected millimetres. Is it in metres\?'):
        to_modality(message(metres, '16UC1'), 'depth')
    millimetres = np.full((2, 3), 1500, np.float32)
    with pytest.raises(SartmError, match=r'median of 1500; expected metres. Is it in millimetres'):
        to_modality(message(millimetres, '32FC1'), 'depth')
    blind = np.zeros((2, 3), np.uint16)  # no reading anywhere has no unit
    assert not to_modality(message(blind, '16UC1'), 'depth').any()


@pytest.mark.parametrize(
    'format_',
    ['16UC1; compressedDepth', '16UC1; compressedDepth png', 'mono16; compressedDepth png'],
)
def test_compressed_depth_in_millimetres(format_):
    depth = np.random.default_rng(0).integers(0, 60_000, (5, 7)).astype(np.uint16)
    data = struct.pack('<iff', 0, 0, 0) + png(depth)
    np.testing.assert_array_equal(to_modality(compressed(data, format_), 'depth'), depth)


def test_compressed_depth_in_metres_is_the_quantised_inverse():
    quantum, farthest = 100.0, 10.0  # image_transport's default parameters
    factor = quantum * (quantum + 1)
    offset = 1 - factor / farthest
    metres = np.array([[0.5, 1, 2], [4, 9, np.nan]])
    quantised = np.where(np.isnan(metres), 0, np.rint(factor / metres + offset)).astype(np.uint16)
    data = struct.pack('<iff', 0, factor, offset) + png(quantised)
    found = to_modality(compressed(data, '32FC1; compressedDepth png'), 'depth')
    np.testing.assert_allclose(found[0], [500, 1000, 2000], atol=2)
    np.testing.assert_allclose(found[1, :2], [4000, 9000], atol=10)
    assert found[1, 2] == 0


@pytest.mark.parametrize(
    ('data', 'format_', 'fault'),
    [
        (bytes(40), '16UC1; compressedDepth rvl', 'expected png'),
        (bytes(5), '16UC1; compressedDepth', 'has 5 bytes; expected 12 bytes and a PNG'),
        (bytes(60), '16UC1; compressedDepth', 'neither JPEG nor PNG'),
        (bytes(12) + png(np.zeros((3, 3), np.uint8)), '16UC1; compressedDepth', 'PNG of uint8'),
        (bytes(12) + png(np.zeros((3, 3), np.uint16)), 'mono8; compressedDepth', 'expected 16UC1'),
        (png(np.zeros((3, 3), np.uint8)), '16UC1; jpeg compressed', 'were cut to 8 bits'),
        (png(np.zeros((3, 3), np.uint8)), 'mono8; png compressed', "encoding 'mono8'"),
    ],
)
def test_compressed_depth_that_cannot_be_read_says_why(data, format_, fault):
    with pytest.raises(SartmError, match=fault):
        to_modality(compressed(data, format_), 'depth')


def test_a_png_of_16_bits_is_depth_in_millimetres():
    depth = np.array([[0, 700], [1234, 65535]], np.uint16)
    found = to_modality(compressed(png(depth), '16UC1; png compressed '), 'depth')
    np.testing.assert_array_equal(found, depth)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'stored'),
    [
        ('rgb8', (0, 1, 2)),
        ('bgr8', (2, 1, 0)),
        ('rgba8', (0, 1, 2, 1)),
        ('bgra8', (2, 1, 0, 1)),
        ('8UC3', (2, 1, 0)),
    ],
)
def test_coloured_images_have_red_first(encoding, stored, padding):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    msg = message(pixels[:, :, stored], encoding, padding=padding)
    for name in COLOURED:
        found = to_modality(msg, name)
        np.testing.assert_array_equal(found, pixels)
        assert shares_memory(found, msg)
        MODALITIES[name].check(found)


def test_one_channel_stands_for_three_equal_ones():
    grey = np.random.default_rng(2).integers(0, 256, (4, 6), dtype=np.uint8)
    found = to_modality(message(grey, 'mono8'), 'depth_coded')
    np.testing.assert_array_equal(found, np.dstack([grey] * 3))


@pytest.mark.parametrize(
    ('encoding', 'stored'), [('rgb8', (0, 1, 2)), ('8UC3', (0, 1, 2)), ('bgr8', (2, 1, 0))]
)
def test_measurements_in_8uc3_are_in_their_own_order(encoding, stored):
    pixels = np.random.default_rng(3).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for name in MEASURED:
        found = to_modality(message(pixels[:, :, stored], encoding), name)
        np.testing.assert_array_equal(found, pixels)
        packed = '' if encoding == '8UC3' else 'bgr8'
        given = pixels if encoding == '8UC3' else pixels[:, :, ::-1]
        msg = compressed(png(given), f'{encoding}; png compressed {packed}')
        np.testing.assert_array_equal(to_modality(msg, name), pixels)
        with pytest.raises(SartmError, match="encoding 'mono8'; expected one of rgb8, bgr8, 8UC3"):
            to_modality(message(pixels[:, :, 0], 'mono8'), name)


@pytest.mark.parametrize(
    ('name', 'encoding', 'channels'),
    [('event_voxel3', '32FC3', 3), ('event_voxel5', '32FC5', 5), ('light_field_row', '8UC24', 24)],
)
@pytest.mark.parametrize('big', [False, True])
def test_many_channels_are_in_their_order(name, encoding, channels, big):
    values = np.random.default_rng(4).integers(0, 200, (3, 4, channels))
    values = values.astype(np.float32 if encoding.startswith('32F') else np.uint8)
    msg = message(values, encoding, padding=4, big=big)
    found = to_modality(msg, name)
    np.testing.assert_array_equal(found, values)
    assert shares_memory(found, msg) == (not big or values.dtype == np.uint8)
    MODALITIES[name].check(found)


def test_a_voxel_that_is_no_number_is_refused():
    values = np.zeros((2, 3, 3), np.float32)
    values[1, 2, 0] = np.nan
    with pytest.raises(SartmError, match='no finite numbers'):
        to_modality(message(values, '32FC3'), 'event_voxel3')


@pytest.mark.parametrize(
    ('name', 'encoding', 'expected'),
    [
        ('depth', 'rgb8', 'expected one of 16UC1, mono16, 32FC1 for depth images'),
        ('event', '16UC1', 'expected one of rgb8, bgr8, 8UC3, .* for event images'),
        ('event_voxel5', '32FC3', 'expected one of 32FC5 for event'),
        ('light_field_row', 'something', 'expected one of 8UC24 for light field'),
    ],
)
def test_another_encoding_says_which_are_read(name, encoding, expected):
    pixels = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(SartmError, match=f"the image has encoding '{encoding}'; {expected}"):
        to_modality(message(pixels, encoding), name)


@pytest.mark.parametrize(
    ('encoding', 'pixels'),
    [('32FC3', np.zeros((2, 3, 3), np.float32)), ('8UC24', np.zeros((2, 3, 24), np.uint8))],
)
def test_more_channels_are_neither_rgb_nor_thermal(encoding, pixels):
    for name in ('rgb', 'thermal'):
        with pytest.raises(SartmError, match=f"encoding '{encoding}'.*; expected one of rgb8"):
            to_modality(message(pixels, encoding), name)
