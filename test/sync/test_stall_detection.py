"""Which thermal images count as frozen or flat, and the last good one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_contrast import judge_contrast
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.pair_matcher import Pair
from sartm_ros.sync.stall_detection import StallDetector, StallPolicy

MS = 1_000_000
AFTER = 300 * MS


def live(seed: int, dtype=np.uint16) -> np.ndarray:
    """A ramp with noise: two of them tell that the camera has noise."""
    noise = np.random.default_rng(seed).integers(0, 20, (48, 64))
    return (np.linspace(10, 190, 64) + noise).astype(dtype)


def states(watch, images, *, interval_ms=33, start_ms=0):
    """What `look` says of images at a steady rate."""
    stamps = [(start_ms + i * interval_ms) * MS for i in range(len(images))]
    return [watch.update(im, t, AFTER) for im, t in zip(images, stamps, strict=True)]


def test_live_images_are_ok():
    assert set(states(StallDetector('thermal'), [live(i) for i in range(40)])) == {'ok'}


def test_an_image_that_stays_the_same_is_frozen_until_it_changes():
    watch = StallDetector('thermal')
    images = [live(0)] + [live(1).copy() for _ in range(20)] + [live(2)]
    found = states(watch, images, interval_ms=50)
    # The second image is the first of the twenty: 300 ms after it begins the freeze.
    assert found == ['ok'] * 7 + ['frozen'] * 14 + ['ok']


def test_one_pixel_is_a_change():
    images = [live(1) for _ in range(30)]
    for index, image in enumerate(images):
        image[5, 7] = index  # not one of those that are compared first
    assert set(states(StallDetector('thermal'), [live(0), *images])) == {'ok'}


def test_a_camera_that_sends_each_image_three_times_is_not_frozen():
    """27 Hz on the wire of 9 Hz from the sensor."""
    images = [live(i // 3) for i in range(81)]
    assert set(states(StallDetector('thermal'), images, interval_ms=37)) == {'ok'}


def test_one_message_that_serves_several_rgb_frames_is_not_frozen():
    watch, image = StallDetector('thermal'), live(1)
    assert {watch.update(image, 5 * MS, AFTER) for _ in range(100)} == {'ok'}


def test_time_that_jumps_back_begins_anew():
    watch = StallDetector('thermal')
    assert states(watch, [live(0)] + [live(1)] * 20)[-1] == 'frozen'
    assert watch.update(live(1), 0, AFTER) == 'ok'


def test_another_size_or_depth_is_another_image():
    watch = StallDetector('thermal')
    images = [live(0)] + [live(1)] * 8 + [live(1)[:24]] + [live(1, np.uint8)[:24]] * 5
    assert states(watch, images)[9:] == ['ok'] * 6


@pytest.mark.parametrize(('dtype', 'least'), [(np.uint8, 8), (np.uint16, 64)])
def test_flat_is_what_the_range_is_not_stretched_for(dtype, least):
    """A ramp of just the least span is stretched to [0, 1]; below it is centred."""
    for span, flat in ((least - 1, True), (least + 1, False)):
        image = np.full((64, 64), 100, dtype)
        image[:, 32:] += dtype(span)
        none = np.zeros_like(image, bool)
        assert judge_contrast(image, none, ThermalSettings()) == (flat, '')
        scaled = MODALITIES['thermal'].scale(image)
        assert (float(scaled.max() - scaled.min()) < 0.999) == flat


def test_with_a_fixed_range_a_room_seen_in_coarse_counts_is_not_flat():
    """Counts of 0.1 K with noise of about one: a room of 18 to 23 degrees, and a closed shutter."""
    rng = np.random.default_rng(0)
    noise = np.rint(rng.standard_normal((288, 382)))
    room = (np.linspace(1180, 1230, 382) + noise).astype(np.uint16)
    shutter = (1250 + noise).astype(np.uint16)
    for settings, expected in (
        (ThermalSettings(), 'flat'),
        (ThermalSettings('fixed', 1000, 1400), 'ok'),  # 0 to 40 degrees
        (ThermalSettings('fixed', 1180, 1230), 'ok'),  # 8 counts are the least
        (ThermalSettings('fixed', 0, 65535), 'flat'),  # and 64 the most
    ):
        watch = StallDetector('thermal')
        assert watch.update(room, 0, AFTER, settings=settings) == expected
        assert watch.update(shutter, 33 * MS, AFTER, settings=settings) == 'flat'


@pytest.mark.parametrize(
    ('dtype', 'counts', 'fixed', 'missed'),
    [
        (np.uint16, (27800, 30300), (0, 255), True),  # the default ends, for counts of 8 bits
        (np.uint8, (20, 230), (28000, 32000), True),
        (np.uint16, (27800, 30300), (28000, 32000), False),
        (np.uint16, (27800, 30300), (22000, 25000), False),  # contrast is kept up to 28000
        (np.uint16, (28100, 30300), (22000, 25000), True),
        (np.uint16, (27800, 30300), (31000, 33000), False),  # and from 29000 on
        (np.uint16, (27800, 30300), (29000, 29002), False),  # nearly black and white, as is wanted
        (np.uint8, (20, 230), (0, 255), False),
    ],
)
def test_a_fixed_range_that_leaves_the_network_no_contrast_is_a_warning(
    dtype, counts, fixed, missed
):
    ramp = np.tile(np.linspace(*counts, 64), (48, 1)).astype(dtype)
    settings = ThermalSettings('fixed', *fixed)
    scaled = MODALITIES['thermal'].scale(ramp, settings.fixed_range)
    assert (float(scaled.max() - scaled.min()) == 0) == missed
    watch = StallDetector('thermal')
    assert watch.update(ramp, 0, AFTER, settings=settings) == 'ok'
    assert bool(watch.range_warning) == missed
    watch.update(ramp, 33 * MS, AFTER, settings=ThermalSettings())
    assert watch.range_warning == ''


def test_a_closed_shutter_is_flat_whatever_the_range():
    watch = StallDetector('thermal')
    shutter = np.full((48, 64), 30000, np.uint16)
    settings = ThermalSettings('fixed', 0, 255)
    assert watch.update(shutter, 0, AFTER, settings=settings) == 'flat'
    assert watch.range_warning == ''


def test_a_flat_image_is_known_at_once_and_dead_pixels_do_not_hide_it():
    watch = StallDetector('thermal')
    rng = np.random.default_rng(0)
    shutter = rng.integers(7000, 7020, (480, 640)).astype(np.uint16)
    shutter[rng.integers(0, 480, 100), rng.integers(0, 640, 100)] = 0
    assert states(watch, [live(0), shutter, live(2)]) == ['ok', 'flat', 'ok']


@pytest.mark.parametrize('size', [(8, 8), (24, 32), (120, 160), (512, 640)])
def test_small_sensors_are_judged_by_enough_pixels(size):
    image, invalid = np.full(size, 7000, np.uint16), np.zeros(size, bool)
    assert judge_contrast(image, invalid, ThermalSettings())[0]
    image[-(size[0] // 4) :] += 500
    assert not judge_contrast(image, invalid, ThermalSettings())[0]


def test_the_last_good_image_is_held_no_longer_than_it_may():
    watch = StallDetector('thermal')
    assert watch.last_good(0, 10**12) is None
    good, flat = live(1), np.zeros((48, 64), np.uint8)
    assert states(watch, [live(0), good, flat, flat], interval_ms=50)[-1] == 'flat'
    image, stamp = watch.last_good(150 * MS, 100 * MS)
    assert image is good
    assert stamp == 50 * MS
    assert watch.last_good(151 * MS, 100 * MS) is None
    assert watch.last_good(-51 * MS, 100 * MS) is None  # a bag that looped


def test_a_frozen_image_is_as_old_as_its_first_copy():
    watch, image = StallDetector('thermal'), live(1)
    assert states(watch, [live(0)] + [image] * 19, interval_ms=50)[-1] == 'frozen'
    assert watch.last_good(950 * MS, 900 * MS)[1] == 50 * MS
    assert watch.last_good(950 * MS, 899 * MS) is None


def test_an_image_that_serves_many_rgb_frames_is_as_old_as_its_own_stamp():
    """RGB at 30 Hz and thermal at 2 Hz, whose image each time serves half a second of pairs."""

    def message(encoding: str, pixels: np.ndarray) -> SimpleNamespace:
        (height, width), step = pixels.shape[:2], pixels.strides[0]
        fields = {'height': height, 'width': width, 'step': step, 'is_bigendian': 0}
        return SimpleNamespace(header=None, encoding=encoding, data=pixels.tobytes(), **fields)

    # Nothing moves.
    rgb = message('rgb8', np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    policy, found = StallPolicy('thermal'), set()
    settings = Parameters(stall_after_s=0.3)
    for number in range(90):
        stamp_ns, x_ns = number * 1000 * MS // 30, number // 15 * 500 * MS
        x = message('mono16', live(number // 15))
        pair = Pair(rgb, x, stamp_ns, skew_ns=x_ns - stamp_ns, arrival_ns=0)
        found.add(policy.usable_images(pair, settings).states['thermal'])
    assert found == {'ok'}


class TestUnreadableThermal:
    """Of pairs whose thermal message has an encoding that nobody reads."""

    @staticmethod
    def pair(encoding: str, stamp_ns: int, rgb: str = 'rgb8', with_rgb: bool = True) -> Pair:
        def message(encoding: str, value: int) -> SimpleNamespace:
            size = {'rgb8': 3}.get(encoding, 1)
            data = bytes([value] * 24 * size + [99] * 24 * size)
            fields = {'height': 8, 'width': 6, 'step': 6 * size, 'is_bigendian': 0, 'data': data}
            return SimpleNamespace(header=None, encoding=encoding, **fields)

        msg = message(rgb, 3) if with_rgb else None
        return Pair(msg, message(encoding, 5), stamp_ns, skew_ns=0, arrival_ns=0)

    def test_labels_come_from_rgb_alone_or_with_the_image_held(self):
        policy, hold = StallPolicy('thermal'), Parameters(thermal_on_stall='hold')
        assert policy.usable_images(self.pair('mono8', 0), Parameters()).modality == 'both'
        for settings, modality in ((Parameters(), 'rgb'), (hold, 'both')):
            images = policy.usable_images(self.pair('h264', 100 * MS), settings)
            assert (images.modality, images.states['thermal']) == (modality, 'unreadable')
            assert "thermal: image encoding 'h264'" in str(images.error)
        assert images.skew_ns == -100 * MS
        images = policy.usable_images(self.pair('mono8', 200 * MS), Parameters())
        assert (images.states['thermal'], images.error) == ('ok', None)

    @pytest.mark.parametrize(
        ('options', 'on_stall', 'text'),
        [
            ({}, 'drop', 'thermal: image encoding'),
            ({'with_rgb': False}, 'rgb_only', 'thermal: image encoding'),
            ({'rgb': 'h264'}, 'rgb_only', 'RGB: image encoding'),
        ],
    )
    def test_a_pair_of_which_nothing_is_left_is_an_error(self, options, on_stall, text):
        settings = Parameters(thermal_on_stall=on_stall)
        with pytest.raises(SartmError, match=text):
            StallPolicy('thermal').usable_images(self.pair('h264', 0, **options), settings)


def test_depth_is_flat_without_any_reading_and_not_in_front_of_a_wall():
    blind, wall = np.zeros((48, 64), np.uint16), np.full((48, 64), 1500, np.uint16)
    wall[3, 5] = 0  # not one of the pixels that are looked at first
    assert StallDetector('thermal').update(wall, 0, AFTER) == 'flat'
    watch = StallDetector('depth')
    assert states(watch, [wall, blind, wall]) == ['ok', 'flat', 'ok']
    assert watch.last_good(66 * MS, 0)[0] is wall


def test_an_event_image_may_be_empty():
    empty = np.full((48, 64, 3), 127, np.uint8)
    assert StallDetector('event').update(empty, 0, AFTER) == 'ok'
    assert StallDetector('event_voxel5').update(np.zeros((48, 64, 5), np.float32), 0, AFTER) == 'ok'
    assert StallDetector('light_field').update(empty, 0, AFTER) == 'flat'


@pytest.mark.parametrize('modality', ['depth', 'event', 'event_voxel5', 'light_field_row'])
def test_any_sensor_that_repeats_its_image_while_rgb_moves_is_frozen(modality):
    sensor, rng = MODALITIES[modality], np.random.default_rng(0)
    shape = sensor.blank(48, 64).shape
    image = rng.integers(0, 200, shape).astype(sensor.dtypes[0])
    watch, found = StallDetector(modality), []
    for index in range(20):
        squares = np.random.default_rng(index).integers(0, 256, (12, 16, 3), np.uint8)
        rgb = squares.repeat(4, axis=0).repeat(4, axis=1)
        found.append(watch.update(image.copy(), index * 50 * MS, AFTER, rgb=rgb))
    assert found == ['ok'] * 6 + ['frozen'] * 14
