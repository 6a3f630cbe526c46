"""The rates, losses and clock differences that the stamps of two topics show."""

from __future__ import annotations

import numpy as np
import pytest

from sartm_ros.diagnosis.input_timing import InputTiming, StreamTiming
from sartm_ros.settings.ros_parameters import parse

MS = 1_000_000
SECOND = 1000 * MS
TOPICS = {'rgb': '/color', 'thermal': '/thermal'}


def rate_of(stamps_ns):
    stream = StreamTiming()
    for stamp_ns in stamps_ns:
        stream.add(int(stamp_ns), 0)
    return stream.rate()


@pytest.mark.parametrize('rate_hz', [4.0, 8.7, 30.0, 60.0])
@pytest.mark.parametrize('kept', [1.0, 0.5, 0.2])
@pytest.mark.parametrize('seed', range(5))
def test_the_rate_of_a_camera_whose_images_are_lost_at_random(rate_hz, kept, seed):
    rng = np.random.default_rng(seed)
    stamps_ns = 10 * SECOND + np.arange(1000) * SECOND / rate_hz + rng.normal(0, 1 * MS, 1000)
    arrive = rng.random(1000) < kept
    found_hz, lost = rate_of(stamps_ns[arrive])
    newest = np.flatnonzero(arrive)[-33:]
    assert found_hz == pytest.approx(rate_hz, rel=0.05)
    assert lost == pytest.approx(1 - 32 / (newest[-1] - newest[0]), abs=0.02)


def test_short_single_intervals_do_not_change_what_longer_ones_are_counted_as():
    """Of a camera of 10 Hz few images come without a loss in between, and those 18 ms too soon."""
    intervals_ms = [82] * 2 + [200] * 5 + [300] * 25
    found_hz, lost = rate_of(SECOND + np.cumsum([0, *intervals_ms]) * MS)
    assert found_hz == pytest.approx(10, rel=0.02)
    assert lost == pytest.approx(1 - 32 / (2 + 5 * 2 + 25 * 3))


def test_what_is_no_loss():
    regular_ns = SECOND + np.arange(100) * 33 * MS
    jitter_ns = np.random.default_rng(0).uniform(-5 * MS, 5 * MS, 100)
    assert rate_of(regular_ns + jitter_ns)[1] == 0
    # Every image twice, a pause of a minute, and a clock that is set back.
    for stamps_ns in (
        np.repeat(regular_ns, 2),
        np.r_[regular_ns[:80], regular_ns[80:] + 60 * SECOND],
        np.r_[regular_ns + 3600 * SECOND, regular_ns],
    ):
        found_hz, lost = rate_of(stamps_ns)
        assert (found_hz, lost) == (pytest.approx(1000 / 33), 0)


def test_a_rate_that_is_unknown():
    assert rate_of(np.arange(1, 17) * 33 * MS) is None  # 15 intervals
    assert rate_of(np.zeros(100)) is None  # no stamps
    rng = np.random.default_rng(0)
    assert rate_of(np.cumsum(rng.exponential(100 * MS, 100)) + SECOND) is None
    in_twos = np.arange(100) // 2 * 100 * MS + np.arange(100) % 2 * MS + SECOND
    assert rate_of(in_twos) is None


def timing_of(thermal_ahead_ns=0, phase_ns=0, interval_ns=33 * MS, jitter_ns=0, **settings):
    """The timing of two cameras of one rate, for settings where `__` stands for a dot."""
    values = {name.replace('__', '.'): value for name, value in settings.items()}
    timing = InputTiming(parse(values))
    rng = np.random.default_rng(0)
    for index in range(60):
        taken_ns = 1000 * SECOND + index * interval_ns
        for camera, delay_ns, ahead_ns in (
            ('rgb', 0, 0),
            ('thermal', phase_ns, thermal_ahead_ns),
        ):
            late_ns = int(rng.uniform(0, jitter_ns)) if jitter_ns else 0
            timing.add(camera, taken_ns + delay_ns + ahead_ns, taken_ns + delay_ns + late_ns)
    return timing


def test_the_offset_is_measured_by_arrival_and_not_by_phase():
    timing = timing_of(-2500 * MS, phase_ns=15 * MS, jitter_ns=20 * MS)
    assert timing.offset_s() == pytest.approx(-2.5, abs=0.01)
    assert timing.values()['thermal_stamps_ahead_s'] == f'{timing.offset_s():.3f}'
    assert InputTiming(parse({})).offset_s() is None


def test_the_offset_of_two_rates_in_a_bag_that_is_played_at_half_speed():
    timing = InputTiming(parse({}))
    images = [('rgb', 33 * index) for index in range(200)]
    images += [('thermal', 111 * index + 5) for index in range(60)]
    for camera, taken_ms in sorted(images, key=lambda image: image[1]):
        ahead_ms = 300 if camera == 'thermal' else 0
        timing.add(camera, 1000 * SECOND + (taken_ms + ahead_ms) * MS, 2 * taken_ms * MS)
    assert timing.offset_s() == pytest.approx(0.3, abs=0.02)


def test_the_offset_after_a_bag_has_begun_again():
    """The second round, shorter than the window, is not mixed with arrivals of the first."""
    timing = InputTiming(parse({}))
    frames = [*range(60), *range(20)]
    for number, frame in enumerate(frames):
        for camera, ahead_ms in (('rgb', 0), ('thermal', 300)):
            stamp_ns = 1000 * SECOND + (33 * frame + ahead_ms) * MS
            timing.add(camera, stamp_ns, 33 * number * MS)
    assert timing.values()['thermal_stamps_ahead_s'] == '0.300'


@pytest.mark.parametrize(
    ('case', 'expected'),
    [
        (
            {'thermal_ahead_ns': -2500 * MS},
            'the stamps of thermal are 2.500 s behind those of RGB: set sync.thermal_offset to '
            '2.500, or sync.max_wait to 2.6 if thermal only arrives late; if the offset varies, '
            'set sync.stamp to arrival',
        ),
        (
            {'thermal_ahead_ns': 30 * SECOND, 'sync__thermal_offset': 5.0},
            'the stamps of thermal are 30.000 s ahead of those of RGB: set sync.thermal_offset to '
            '-30.000; if the offset varies, set sync.stamp to arrival',
        ),
        (
            {'thermal_ahead_ns': 16 * 10**8 * SECOND},
            'the stamps of thermal are 1600000000.000 s ahead of those of RGB, so they come from '
            'different clocks: set sync.stamp to arrival, or let both drivers stamp with the time '
            'of the computer',
        ),
        (
            {'thermal_ahead_ns': 2 * SECOND, 'sync__policy': 'approximate'},
            'set sync.policy to nearest and sync.thermal_offset to -2.000',
        ),
        (
            {'thermal_ahead_ns': 4 * MS, 'sync__policy': 'exact'},
            'the stamps of thermal are 0.004 s ahead of those of RGB, and sync.policy exact pairs '
            'equal stamps only: set it to nearest',
        ),
        (
            {'phase_ns': 200 * MS, 'interval_ns': 500 * MS},
            'the nearest stamps are 0.200 s apart, and sync.max_skew is 0.05 s: raise '
            'sync.max_skew',
        ),
        (
            {
                'phase_ns': 200 * MS,
                'interval_ns': 500 * MS,
                'thermal_ahead_ns': -130 * MS,
                'sync__thermal_offset': 0.13,
            },
            'the nearest stamps are 0.200 s apart, and sync.max_skew is 0.05 s: raise '
            'sync.max_skew',
        ),
        (
            {
                'phase_ns': 200 * MS,
                'interval_ns': 500 * MS,
                'thermal_ahead_ns': 10**9 * SECOND,
                'sync__stamp': 'arrival',
            },
            'the nearest images arrive 0.200 s apart, and sync.max_skew is 0.05 s: raise '
            'sync.max_skew',
        ),
        (
            {'sync__stamp': 'arrival', 'sync__thermal_offset': -2.5},
            'sync.thermal_offset, -2.5 s, is added to the arrival of thermal: set it to about 0, '
            'or sync.max_wait to 2.6 if thermal only arrives late',
        ),
        (
            {'sync__stamp': 'arrival', 'sync__thermal_offset': 5},
            'sync.thermal_offset, 5 s, is added to the arrival of thermal: set it to about 0',
        ),
        (
            {
                'phase_ns': 20 * MS,
                'interval_ns': 200 * MS,
                'sync__stamp': 'arrival',
                'sync__max_wait': 0.01,
            },
            'the nearest images arrive 0.020 s apart, but RGB waits no longer than sync.max_wait, '
            '0.01 s: raise sync.max_wait',
        ),
    ],
)
def test_the_advice(case, expected):
    assert expected in timing_of(**case).explain_no_pairs()


@pytest.mark.parametrize('stamp', [lambda ns: ns, lambda ns: 0, lambda ns: SECOND])
def test_the_advice_by_arrival_needs_no_stamps(stamp):
    """Good ones, none, and always the same; thermal is taken with RGB and arrives 80 ms later."""
    settings = {'sync.stamp': 'arrival', 'sync.max_skew': 0.01, 'sync.max_wait': 0.02}
    timing = InputTiming(parse(settings))
    assert timing.explain_no_pairs() == ''
    images = [('rgb', 33 * index, 33 * index) for index in range(60)]
    images += [('thermal', taken_ms, taken_ms + 80) for _, taken_ms, _ in images]
    for camera, taken_ms, arrival_ms in sorted(images, key=lambda image: image[2]):
        timing.add(camera, stamp(10 * SECOND + taken_ms * MS), arrival_ms * MS)
    # 80 ms are 14 ms more than two intervals.
    assert timing.explain_no_pairs() == (
        'the nearest images arrive 0.014 s apart, and sync.max_skew is 0.01 s: raise sync.max_skew'
    )
    assert timing.streams['rgb'].interval_s() == pytest.approx(0.033)


def test_losses_name_the_topic_and_the_profile(monkeypatch):
    monkeypatch.delenv('RMW_IMPLEMENTATION', raising=False)
    timing = InputTiming(parse({}))
    kept = np.random.default_rng(1).random(300) < 0.2
    for index in range(300):
        timing.add('thermal', SECOND + index * 33 * MS, 0)
        if kept[index]:
            timing.add('rgb', SECOND + index * 33 * MS, 0)
    text = timing.describe_losses(TOPICS)
    assert 'of the images on /color are lost' in text
    assert 'a camera of 30.3 Hz' in text
    assert '/thermal' not in text
    assert 'FASTRTPS_DEFAULT_PROFILES_FILE set to ' in text
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_fastrtps_dynamic_cpp')
    assert timing.describe_losses(TOPICS) == text
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')
    text = timing.describe_losses(TOPICS)
    assert 'FASTRTPS' not in text
    assert 'rmw_cyclonedds_cpp or the network loses them: enlarge the receive buffers' in text
    assert timing.values()['rgb_expected_hz'] == timing.values()['pairs_expected_hz'] == '30.3'
    assert timing.values()['thermal_lost'] == '0%'


def test_the_expected_rate_of_pairs_is_that_of_the_slower_camera_unless_thermal_is_reused():
    for reuse, expected in ((False, '10.0'), (True, '20.0')):
        timing = InputTiming(parse({'sync.reuse_thermal': reuse}))
        for index in range(40):
            timing.add('rgb', SECOND + index * 50 * MS, 0)
            timing.add('thermal', SECOND + index * 100 * MS, 0)
        assert timing.values()['pairs_expected_hz'] == expected
