"""Images between messages and numpy, against values worked out by hand."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_ros.messages.images import from_numpy, stamp_ns, to_rgb, to_thermal


@dataclass
class Message:
    """The fields of sensor_msgs/Image that are read."""

    data: bytes
    height: int = 4
    width: int = 6
    encoding: str = 'rgb8'
    step: int = 0
    is_bigendian: int = 0
    header: object = field(default=None)


def message(pixels, encoding, *, padding=0, big=False) -> Message:
    """A message of `[H, W, ...]` pixels whose rows end in `padding` bytes of rubbish."""
    height, width = pixels.shape[:2]
    if pixels.dtype == np.uint16:
        pixels = pixels.astype('>u2' if big else '<u2')
    rows = [row.tobytes() + b'\xaa' * padding for row in pixels]
    return Message(b''.join(rows), height, width, encoding, len(rows[0]), int(big))


@pytest.fixture
def color() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb8', (0, 1, 2)),
        ('bgr8', (2, 1, 0)),
        ('8UC3', (2, 1, 0)),
        ('rgba8', (0, 1, 2, 0)),
        ('bgra8', (2, 1, 0, 0)),
    ],
)
def test_packed_colour_is_a_view(color, encoding, order, padding):
    msg = message(color[:, :, order], encoding, padding=padding)
    rgb = to_rgb(msg)
    np.testing.assert_array_equal(rgb, color)
    assert np.shares_memory(rgb, np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_monochrome_serves_as_rgb_and_as_thermal(color, encoding):
    gray = color[:, :, 0]
    msg = message(gray, encoding, padding=3)
    np.testing.assert_array_equal(to_rgb(msg), np.stack([gray] * 3, axis=-1))
    np.testing.assert_array_equal(to_thermal(msg), gray)
    assert np.shares_memory(to_thermal(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize('big', [False, True])
def test_sixteen_bits_keep_their_counts(encoding, big):
    counts = np.random.default_rng(2).integers(0, 2**14, (4, 6)).astype(np.uint16)
    thermal = to_thermal(message(counts, encoding, padding=4, big=big))
    np.testing.assert_array_equal(thermal, counts)
    assert thermal.dtype == np.uint16
    assert thermal.dtype.isnative


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_colour_thermal_becomes_luma(color, encoding, padding):
    msg = message(color if encoding == 'rgb8' else color[:, :, ::-1], encoding, padding=padding)
    expected = color @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(to_thermal(msg), expected, atol=1)


@pytest.mark.parametrize(
    ('encoding', 'pattern'),
    [
        ('bayer_rggb8', 'rggb'),
        ('bayer_bggr8', 'bggr'),
        ('bayer_gbrg8', 'gbrg'),
        ('bayer_grbg8', 'grbg'),
    ],
)
def test_bayer_patterns(encoding, pattern):
    values = {'r': 200, 'g': 100, 'b': 50}
    tile = np.array([values[letter] for letter in pattern], np.uint8).reshape(2, 2)
    msg = message(np.tile(tile, (4, 5)), encoding, padding=2)
    np.testing.assert_array_equal(to_rgb(msg), np.broadcast_to([200, 100, 50], (8, 10, 3)))
    np.testing.assert_allclose(to_thermal(msg), 200 * 0.299 + 100 * 0.587 + 50 * 0.114, atol=1)


@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('yuv422', 'uyvy'),
        ('uyvy', 'uyvy'),
        ('yuv422_yuy2', 'yuyv'),
        ('yuyv', 'yuyv'),
    ],
)
def test_yuv422(encoding, order):
    """BT.601, studio range: a saturated red."""
    values = {'y': 81, 'u': 90, 'v': 240}
    row = np.array([values[letter] for letter in order], np.uint8).reshape(1, 2, 2)
    msg = message(np.tile(row, (4, 3, 1)), encoding)
    np.testing.assert_allclose(to_rgb(msg), np.broadcast_to([254, 0, 0], (4, 6, 3)), atol=2)
    np.testing.assert_array_equal(to_thermal(msg), np.full((4, 6), 81))


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'height': 0}, 'at least one pixel'),
        ({'width': 0}, 'at least one pixel'),
        ({'step': 0}, 'step of 0 bytes; expected at least 18'),
        ({'step': 17}, 'step of 17 bytes; expected at least 18'),
        ({'step': 20}, 'holds 72 bytes; expected 80'),
        ({'height': 5}, 'holds 72 bytes; expected 90'),
        ({'data': b''}, 'holds 0 bytes; expected 72'),
        ({'data': bytes(73)}, 'holds 73 bytes; expected 72'),
        ({'encoding': 'yuyv', 'width': 3, 'height': 1, 'data': bytes(6), 'step': 6}, '3x1 image'),
    ],
)
def test_malformed_images_say_what_is_wrong(color, changes, expected):
    msg = message(color, 'rgb8')
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(SartmError, match=expected):
        to_rgb(msg)


def test_an_odd_step_of_sixteen_bit_pixels_is_refused():
    with pytest.raises(SartmError, match='step of 13 bytes'):
        to_thermal(Message(bytes(52), 4, 6, '16UC1', 13))


@pytest.mark.parametrize('encoding', ['', 'rgb7', 'h264', '32FC1'])
def test_an_unknown_encoding_is_named(encoding):
    if importlib.util.find_spec('cv_bridge') is not None:
        pytest.skip('cv_bridge is installed and has its own list of encodings')
    for convert in (to_rgb, to_thermal):
        with pytest.raises(SartmError, match=f"encoding '{encoding}' is not supported"):
            convert(Message(bytes(72), encoding=encoding, step=18))


def test_a_sixteen_bit_rgb_topic_is_refused():
    with pytest.raises(SartmError, match='topics exchanged'):
        to_rgb(Message(bytes(48), encoding='16UC1', step=12))


@pytest.mark.parametrize(
    ('sec', 'nanosec', 'expected'),
    [(3, 250, 3_000_000_250), (0, 0, 0), (5, 1_000_000_000, 0), (-2, 0, -2_000_000_000)],
)
def test_stamps(sec, nanosec, expected):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    assert stamp_ns(header) == expected


def test_messages_come_back_as_they_went(color):
    pytest.importorskip('sensor_msgs', reason='needs ROS 2 (sensor_msgs)')
    from std_msgs.msg import Header

    header = Header(frame_id='camera')
    header.stamp.sec = 7
    for image, encoding, back in (
        (color, 'rgb8', to_rgb),
        (color[:, ::2, ::-1], 'rgb8', to_rgb),
        (color[:, :, 1], 'mono8', to_thermal),
    ):
        msg = from_numpy(image, encoding, header)
        assert msg.header == header
        assert (msg.height, msg.width) == image.shape[:2]
        np.testing.assert_array_equal(back(msg), image)
