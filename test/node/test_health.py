"""Counters, statistics and the level of the diagnostics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sartm_ros.node import health as health_module
from sartm_ros.node.health import ERROR, OK, SAMPLES, STAGES, WARN, Health

TOPICS = {'rgb': '/color', 'thermal': '/thermal'}


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test sets."""

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


def report_of(health, drops=()):
    """The report, with 'why WHICH' as the text on a silent topic."""
    return health.report(TOPICS, dict(drops), 'why {}'.format)


def frame(health, skew_ns=0, latency_s=0.01):
    health.received('rgb')
    health.received('thermal')
    health.record_pair(skew_ns)
    health.published(latency_s)


def test_counts_add_up_with_the_matchers(health):
    frame(health)
    health.record_pair(0)
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
    values = report_of(health).values
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
        health.received('thermal')
        report = report_of(health)
        assert report.level == OK
        assert report.values['rate_hz'] == report.values['rgb_hz'] == f'{expected}.0'
        assert report.values['thermal_hz'] == f'{expected + 0.5}'


def test_a_silent_topic_is_named(health, clock):
    clock.now_s += 3.0
    health.received('rgb')
    report = report_of(health)
    assert report.level == ERROR
    assert report.message == 'no messages on /thermal, why thermal'
    clock.now_s += 3.0
    assert report_of(health).message == (
        'no messages on /color, why rgb; no messages on /thermal, why thermal'
    )
    health.restart_clocks()
    assert report_of(health).level == OK


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
    report = report_of(health, {reason: 7})
    assert report.level == WARN
    assert expected in report.message
    assert reason in report.message
    # What was reported is over unless it goes on.
    frame(health)
    assert report_of(health, {reason: 7}).level == OK


def test_bad_frames_turn_it_to_a_warning_with_the_last_error(health):
    frame(health)
    health.dropped('bad_frame', error='thermal: the image is 0x0 pixels')
    report = report_of(health)
    assert report.level == WARN
    assert 'thermal: the image is 0x0 pixels' in report.message


def test_the_last_error_has_an_age_and_the_modality_is_the_last_seconds(health, clock):
    assert report_of(health).values['last_error'] == report_of(health).values['modality'] == 'none'
    frame(health)
    health.published(0.01, 'rgb')
    health.dropped('failed', error='first')
    clock.now_s += 0.5
    health.dropped('failed', error='second')
    clock.now_s += 1.5
    values = report_of(health).values
    assert (values['last_error'], values['last_error_age_s']) == ('second', '1.5')
    assert values['modality'] == 'both, rgb'
    health.published(0.01, 'thermal')
    clock.now_s += 1.0
    values = report_of(health).values
    assert (values['last_error_age_s'], values['modality']) == ('2.5', 'thermal')


def test_every_stage_has_its_median_and_p99(health):
    spread = np.random.default_rng(0).permutation(np.arange(101))  # its percentiles are itself
    for factor in spread:
        health.record_stages(
            {stage: 1e-3 * factor * (place + 1) for place, stage in enumerate(STAGES)}
        )
    values = report_of(health).values
    for place, stage in enumerate(STAGES, start=1):
        assert float(values[f'{stage}_median_ms']) == pytest.approx(50 * place)
        assert float(values[f'{stage}_p99_ms']) == pytest.approx(99 * place)
    assert 'latency_median_ms' not in values


def test_a_node_that_does_not_listen_says_why(health, clock):
    clock.now_s += 100.0
    report = health.idle('disabled')
    assert (report.level, report.message) == (OK, 'disabled')
    assert report.values['rgb_hz'] == '0.0'


def test_a_stall_is_a_warning_that_says_what_was_served(health, clock):
    frame(health)
    for _ in range(3):
        health.stalled('thermal_frozen')
        health.published(0.01, 'rgb')
    report = report_of(health)
    assert report.level == WARN
    assert report.message == (
        'thermal_frozen: 1 results from RGB and thermal, 3 results from RGB alone, '
        '0 results from thermal alone; '
        '/thermal: the image does not change: a closed shutter, or a driver that hangs?'
    )
    assert report.values['thermal_frozen'] == report.values['served_rgb'] == '3'
    frame(health)
    assert report_of(health).level == OK
    # A silent topic is an error only where nothing comes out.
    clock.now_s += 3.0
    health.received('rgb')
    for served, level in ((True, WARN), (False, ERROR)):
        health.stalled('thermal_gap')
        if served:
            health.published(0.01, 'rgb')
        report = report_of(health)
        assert report.level == level
        assert 'no messages on /thermal, why thermal' in report.message


def test_the_message(health):
    pytest.importorskip('diagnostic_msgs', reason='needs ROS 2 (diagnostic_msgs)')
    from builtin_interfaces.msg import Time

    from sartm_ros.node.diagnostics import to_message

    frame(health)
    message = to_message(report_of(health), '/sartm: inference', 'cpu', Time(sec=5))
    (status,) = message.status
    assert message.header.stamp.sec == 5
    assert (status.level, status.name, status.hardware_id) == (b'\x00', '/sartm: inference', 'cpu')
    assert {item.key: item.value for item in status.values}['pairs_out'] == '1'


def test_a_repeated_warning_is_logged_at_most_once_in_a_period(monkeypatch):
    pytest.importorskip('diagnostic_msgs', reason='needs ROS 2 (diagnostic_msgs)')
    from sartm_ros.node import diagnostics

    now_s, logged = 100.0, []
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now_s)
    logger = SimpleNamespace(warning=logged.append)
    reporter = diagnostics.Diagnostics(
        SimpleNamespace(create_publisher=lambda *_: None, get_logger=lambda: logger)
    )
    for now_s in (100.0, 104.9, 105.0, 109.9):
        reporter.warn('bad_frame', f'at {now_s}')
        reporter.warn('nan', f'NaN at {now_s}')
    assert logged == ['at 100.0', 'NaN at 100.0', 'at 105.0', 'NaN at 105.0']
