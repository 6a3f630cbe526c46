"""Counters, statistics and the verdict of the diagnostics."""

from __future__ import annotations

import numpy as np
import pytest

from sartm_ros import health as health_module
from sartm_ros.health import ERROR, OK, SAMPLES, WARN, Health, to_message

TOPICS = {'rgb': '/color', 'thermal': '/thermal'}


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that goes on only when told to."""

    class Clock:
        now_s = 100.0

        def monotonic(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(health_module, 'time', clock)
    return clock


@pytest.fixture
def health(clock):
    return Health()


def frame(health, skew_ns=0, latency_s=0.01):
    health.received('rgb')
    health.received('thermal')
    health.paired(skew_ns)
    health.published(latency_s)


def test_counts_add_up_with_the_matchers(health):
    frame(health)
    health.paired(0)
    health.dropped('replaced')
    health.dropped('rgb_no_stamp', 2)
    health.dropped('stopped', 0)
    assert health.counts({'rgb_no_stamp': 3, 'rgb_timeout': 1}) == {
        'rgb_received': 1,
        'thermal_received': 1,
        'pairs_in': 2,
        'pairs_out': 1,
        'served_both': 1,
        'served_rgb': 0,
        'served_thermal': 0,
        'dropped.replaced': 1,
        'dropped.rgb_no_stamp': 5,
        'dropped.rgb_timeout': 1,
    }


def test_statistics_are_of_the_newest_samples(health):
    latencies = np.random.default_rng(3).gamma(2.0, 0.01, SAMPLES + 500)
    for latency in latencies:
        frame(health, skew_ns=-3_000_000, latency_s=float(latency))
    values = health.report(TOPICS, {}).values
    newest = np.sort(latencies[-SAMPLES:] * 1e3)
    assert float(values['latency_median_ms']) == pytest.approx(
        (newest[SAMPLES // 2 - 1] + newest[SAMPLES // 2]) / 2, abs=0.01
    )
    assert newest[-12] <= float(values['latency_p99_ms']) <= newest[-9]
    assert values['skew_max_ms'] == '3.00'


def test_the_rate_is_that_since_the_last_report(health, clock):
    for expected in (10, 20):
        clock.now_s += 2.0
        for _ in range(2 * expected):
            frame(health)
        report = health.report(TOPICS, {})
        assert report.level == OK
        assert report.values['rate_hz'] == f'{expected}.0'


def test_a_silent_topic_is_named(health, clock):
    clock.now_s += 3.0
    health.received('rgb')
    report = health.report(TOPICS, {})
    assert report.level == ERROR
    assert 'no messages on /thermal:' in report.message
    health.restart_clocks()
    assert health.report(TOPICS, {}).level == OK


@pytest.mark.parametrize(
    ('reason', 'expected'),
    [
        ('rgb_no_partner', 'sync.thermal_offset'),
        ('rgb_timeout', 'sync.max_wait'),
        ('thermal_no_stamp', 'the thermal driver leaves header.stamp empty'),
    ],
)
def test_no_pairs_although_both_speak_says_why(health, reason, expected):
    health.received('rgb')
    health.received('thermal')
    report = health.report(TOPICS, {reason: 7})
    assert report.level == WARN
    assert expected in report.message
    assert reason in report.message
    # What was reported is over unless it goes on.
    frame(health)
    assert health.report(TOPICS, {reason: 7}).level == OK


def test_bad_frames_turn_it_to_a_warning_with_the_last_error(health):
    frame(health)
    health.dropped('bad_frame', error='thermal: the image is 0x0 pixels')
    report = health.report(TOPICS, {})
    assert report.level == WARN
    assert 'thermal: the image is 0x0 pixels' in report.message


def test_a_stall_is_a_warning_that_says_what_was_served(health, clock):
    frame(health)
    for _ in range(3):
        health.stalled('thermal_frozen')
        health.published(0.01, 'rgb')
    report = health.report(TOPICS, {})
    assert report.level == WARN
    assert report.message == (
        'thermal_frozen: 1 results from both cameras, 3 from RGB alone, 0 from thermal alone'
    )
    assert report.values['thermal_frozen'] == report.values['served_rgb'] == '3'
    frame(health)
    assert health.report(TOPICS, {}).level == OK
    # A silent topic is an error only where nothing comes out.
    clock.now_s += 3.0
    health.received('rgb')
    for served, level in ((True, WARN), (False, ERROR)):
        health.stalled('thermal_gap')
        if served:
            health.published(0.01, 'rgb')
        assert health.report(TOPICS, {}).level == level


def test_the_message(health):
    pytest.importorskip('diagnostic_msgs', reason='needs ROS 2 (diagnostic_msgs)')
    from builtin_interfaces.msg import Time

    frame(health)
    message = to_message(health.report(TOPICS, {}), '/sartm: inference', 'cpu', Time(sec=5))
    (status,) = message.status
    assert message.header.stamp.sec == 5
    assert (status.level, status.name, status.hardware_id) == (b'\x00', '/sartm: inference', 'cpu')
    assert {item.key: item.value for item in status.values}['pairs_out'] == '1'
