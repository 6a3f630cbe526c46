"""Images between messages and numpy, against values worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_model.modalities.thermal_valid import invalid_pixels
from sartm_ros.messages.images import stamp_of, to_rgb, to_thermal


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
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
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
        ('8UC4', (2, 1, 0, 0)),
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


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb16', (0, 1, 2)),
        ('bgr16', (2, 1, 0)),
        ('rgba16', (0, 1, 2, 0)),
        ('bgra16', (2, 1, 0, 0)),
    ],
)
def test_colour_of_sixteen_bits_keeps_its_upper_eight(encoding, order, big, padding):
    color = np.random.default_rng(3).integers(0, 2**16, (4, 6, 3)).astype(np.uint16)
    msg = message(color[:, :, order], encoding, padding=padding, big=big)
    np.testing.assert_array_equal(to_rgb(msg), color // 256)
    luma = color @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(to_thermal(msg), luma, atol=3)  # OpenCV's weights have 15 bits
    assert to_thermal(msg).dtype == np.uint16


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
def test_data_in_the_upper_bits_are_shifted_down(encoding):
    """A camera of 14 bits that sends Y16 with its counts in bits 2 to 15."""
    counts = np.random.default_rng(4).integers(0, 2**14, (4, 6)).astype(np.uint16)
    msg = message(counts << 2, encoding)
    np.testing.assert_array_equal(to_thermal(msg, 2), counts)
    np.testing.assert_array_equal(to_thermal(msg), 4 * counts.astype(int))


def test_a_shift_leaves_other_encodings_alone():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(to_thermal(message(pixels, 'mono8'), 2), pixels)
    kelvin = message(pixels + np.float32(280), '32FC1')
    np.testing.assert_array_equal(to_thermal(kelvin, 2), to_thermal(kelvin))
    signed = message(pixels.astype(np.int16), '16SC1')
    np.testing.assert_array_equal(to_thermal(signed, 2), to_thermal(signed))


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('unit', ['kelvin', 'celsius'])
def test_temperatures_become_hundredths_of_a_kelvin(unit, big):
    celsius = np.random.default_rng(5).uniform(-40, 380, (20, 30))
    celsius[:15] = np.random.default_rng(6).uniform(-20, 40, (15, 30))
    values = (celsius + 273.15 if unit == 'kelvin' else celsius).astype(np.float32)
    values[1, :4] = np.nan, np.inf, -np.inf, -300
    values[2, 0] = 900  # above what 16 bits hold
    found = to_thermal(message(values, '32FC1', padding=8, big=big))
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    assert (found[1, :4] == 0).all()
    assert found[2, 0] == 65534
    expected = (celsius + 273.15) * 100
    valid = np.ones(celsius.shape, bool)
    valid[1, :4] = valid[2, 0] = False
    assert np.abs(found - expected)[valid].max() <= 0.51


def test_an_image_without_a_temperature_is_invalid_everywhere():
    assert not to_thermal(message(np.full((4, 6), np.nan, np.float32), '32FC1')).any()


def test_pixels_without_a_temperature_are_left_out_of_ranges_and_input():
    values = np.random.default_rng(9).uniform(10, 35, (48, 64)).astype(np.float32)
    values[10:20, 30:40] = np.nan
    counts = to_thermal(message(values, '32FC1'))
    invalid = invalid_pixels(counts.astype(np.float32), eight_bits=False)
    assert invalid[10:20, 30:40].all()
    assert invalid.sum() <= 14 * 14  # with two pixels around them


@pytest.mark.parametrize('big', [False, True])
def test_signed_counts_keep_their_order_and_distance(big):
    counts = np.random.default_rng(7).integers(-(2**15), 2**15, (4, 6)).astype(np.int16)
    counts[0, :2] = -(2**15), 2**15 - 1
    found = to_thermal(message(counts, '16SC1', padding=2, big=big))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.astype(int), counts.astype(int) + 32768)
    assert found[0, 0] == 0


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


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_of_a_bayer_pattern_of_16_bits_the_upper_8_are_taken(pattern, big):
    values = {'r': 51_455, 'g': 25_600, 'b': 13_055}
    tile = np.array([values[letter] for letter in pattern], np.uint16).reshape(2, 2)
    msg = message(np.tile(tile, (4, 5)), f'bayer_{pattern}16', padding=2, big=big)
    found = to_rgb(msg)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.broadcast_to([200, 100, 50], (8, 10, 3)))
    luma = to_thermal(msg)
    assert luma.dtype == np.uint16
    np.testing.assert_allclose(luma, 51_455 * 0.299 + 25_600 * 0.587 + 13_055 * 0.114, atol=2)


def yuv_to_rgb(y, u, v) -> np.ndarray:
    """ITU-R BT.601 in studio range: y from 16 to 235, u and v from 16 to 240."""
    y, u, v = 255 / 219 * (y - 16.0), 255 / 224 * (u - 128.0), 255 / 224 * (v - 128.0)
    green = y - 0.299 / 0.587 * 1.402 * v - 0.114 / 0.587 * 1.772 * u
    return np.stack([y + 1.402 * v, green, y + 1.772 * u], axis=-1).clip(0, 255)


@pytest.fixture
def yuv() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma `[8, 10]`, and chroma `[4, 5]` of which each value serves 2x2 pixels."""
    rng = np.random.default_rng(8)
    y = rng.integers(16, 236, (8, 10), dtype=np.uint8)
    u, v = rng.integers(16, 241, (2, 4, 5), dtype=np.uint8)
    return y, u, v


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('yuv422', 'uyvy'),
        ('uyvy', 'uyvy'),
        ('yuv422_yuy2', 'yuyv'),
        ('yuyv', 'yuyv'),
    ],
)
def test_yuv422(encoding, order, padding, yuv):
    """OpenCV computes with integers: 2 of 255 is its tolerance."""
    y, u, v = yuv
    u, v = np.repeat(u, 2, axis=0), np.repeat(v, 2, axis=0)  # one value in each row
    luma = iter((y[:, ::2], y[:, 1::2]))
    packed = np.stack(
        [next(luma) if letter == 'y' else {'u': u, 'v': v}[letter] for letter in order], axis=-1
    )
    msg = message(packed.reshape(8, 10, 2), encoding, padding=padding)
    expected = yuv_to_rgb(y, np.repeat(u, 2, axis=1), np.repeat(v, 2, axis=1))
    np.testing.assert_allclose(to_rgb(msg), expected, atol=2)
    np.testing.assert_array_equal(to_thermal(msg), y)


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_yuv_in_two_planes(encoding, padding, yuv):
    y, u, v = yuv
    chroma = np.stack((u, v) if encoding == 'nv12' else (v, u), axis=-1).reshape(4, 10)
    msg = message(np.concatenate([y, chroma]), encoding, padding=padding)
    msg.height = 8  # the chroma is not counted
    u, v = (np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1) for plane in (u, v))
    np.testing.assert_allclose(to_rgb(msg), yuv_to_rgb(y, u, v), atol=2)
    np.testing.assert_array_equal(to_thermal(msg), y)
    assert np.shares_memory(to_thermal(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'height': 0}, 'at least one pixel'),
        ({'width': 0}, 'at least one pixel'),
        ({'step': 0}, 'step of 0 bytes; expected at least 18'),
        ({'step': 17}, 'step of 17 bytes; expected at least 18'),
        ({'step': 20}, 'holds 72 bytes; expected 80'),
        ({'height': 5}, 'holds 72 bytes; expected 90'),
        ({'data': b''}, r'holds 0 bytes; expected 72 \(step 18 x 4 rows\)'),
        ({'data': bytes(73)}, 'holds 73 bytes; expected 72'),
        ({'encoding': 'yuyv', 'width': 3, 'height': 1, 'data': bytes(6), 'step': 6}, '3x1 image'),
        ({'encoding': 'nv12'}, r'holds 72 bytes; expected 108 \(step 18 x 6 rows, of which 2 rows'),
        ({'encoding': 'nv21', 'height': 3}, 'expected an even width and height'),
    ],
)
def test_malformed_images_say_what_is_wrong(color, changes, expected):
    msg = message(color, 'rgb8')
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(SartmError, match=expected):
        to_rgb(msg)


def test_an_odd_step_of_sixteen_bit_pixels_is_refused():
    with pytest.raises(SartmError, match=r'step of 13 bytes; .*, and a multiple of 2'):
        to_thermal(Message(bytes(52), 4, 6, '16UC1', 13))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1', '16SC1', '32FC1'])
def test_a_thermal_image_on_the_rgb_topic_is_refused(encoding):
    size = 2 if '16' in encoding else 4
    msg = Message(bytes(24 * size), encoding=encoding, step=6 * size)
    with pytest.raises(SartmError, match=r'expected one of rgb8, .*topics exchanged') as failure:
        to_rgb(msg)
    assert repr(encoding) in str(failure.value)
    assert '16UC1,' not in str(failure.value)


@pytest.mark.parametrize(
    ('sec', 'nanosec', 'expected'),
    [(3, 250, 3_000_000_250), (0, 0, 0), (5, 1_000_000_000, 0), (-2, 0, -2_000_000_000)],
)
def test_stamps(sec, nanosec, expected):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    assert stamp_of(header) == expected
