"""Counters, statistics and the level of the diagnostics."""

from __future__ import annotations

import contextlib
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal import Thermal
from sartm_ros.diagnosis import health as health_module
from sartm_ros.diagnosis.failures import Failures
from sartm_ros.diagnosis.health import SAMPLES, STAGES, Health, stall_counters
from sartm_ros.diagnosis.input_timing import InputTiming
from sartm_ros.diagnosis.judgement import (
    BUSY_S,
    ERROR,
    OK,
    STALL_HINTS,
    START_UP_S,
    WARN,
    Report,
    judge,
)
from sartm_ros.diagnosis.observations import Observations
from sartm_ros.settings.parameters import Parameters
from sartm_ros.settings.ros_parameters import parse
from sartm_ros.sync.matching import make_pair_matcher
from sartm_ros.sync.stall_detection import UsableImages

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
    return Health('thermal')


def report_of(health, drops=(), timing=None, topics=TOPICS, busy_s=0.0):
    """The report, with 'why WHICH' as the text on a silent topic."""
    timing = timing or InputTiming(Parameters())
    return judge(health.recent(dict(drops)), timing, topics, 'why {}'.format, busy_s)


def frame_in(health, skew_ns=0):
    health.record_received('rgb')
    health.record_received('thermal')
    health.record_pair(skew_ns)
    health.record_stalls()


def frame(health, skew_ns=0, latency_s=0.01):
    frame_in(health, skew_ns)
    health.record_result(latency_s)


def test_counts_add_up_with_the_matchers(health):
    frame(health)
    health.record_pair(0)
    health.record_dropped('replaced')
    health.record_dropped('rgb_no_stamp', 2)
    health.record_dropped('stopped', 0)
    assert health.counts({'rgb_no_stamp': 3, 'rgb_timeout': 1}) == {
        'rgb_received': 1,
        'thermal_received': 1,
        'pairs_in': 2,
        'pairs_matched': 2,
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
        health.record_received('thermal')
        report = report_of(health)
        assert report.level == OK
        assert report.values['rate_hz'] == report.values['rgb_hz'] == f'{expected}.0'
        assert report.values['thermal_hz'] == f'{expected + 0.5}'


def test_cameras_have_time_to_start(health, clock):
    """A driver that is started together with the node is not reported as an error at once."""
    for _ in range(int(START_UP_S) - 1):
        clock.now_s += 1.0
        report = report_of(health)
        assert report.level < ERROR
        assert report.problem == ''  # not logged
    assert report.level == WARN
    assert report.message == (
        'no messages on /color, why rgb; no messages on /thermal, why thermal'
    )
    clock.now_s += 1.0
    report = report_of(health)
    assert (report.level, report.problem) == (ERROR, 'silent rgb thermal')
    clock.now_s += 1.0
    frame(health)
    assert report_of(health).level == OK


def test_a_silent_topic_is_named(health, clock):
    clock.now_s += START_UP_S
    health.record_received('rgb')
    report = report_of(health)
    assert report.level == ERROR
    assert report.message == 'no messages on /thermal, why thermal'
    clock.now_s += 3.0
    assert report_of(health).message == (
        'no messages on /color, why rgb; no messages on /thermal, why thermal'
    )
    health.restart_clocks()
    assert report_of(health).level == OK


def test_no_pairs_although_both_speak_says_why(health, clock):
    timing = InputTiming(Parameters())
    clock.now_s += 1.1
    health.record_received('rgb')
    assert report_of(health).message == 'no pairs: the images wait for their partners'
    for reason, offset_s, expected in [
        ('rgb_no_stamp', None, 'the RGB driver gives no valid header.stamp'),
        ('thermal_no_stamp', None, 'the thermal driver gives no valid header.stamp'),
        ('rgb_no_partner', 7.0, '7.000 s ahead of those of RGB: set sync.thermal_offset to -7.000'),
    ]:
        health.record_received('rgb')
        health.record_received('thermal')
        if offset_s is not None:
            timing.add('rgb', 10**9, 0)
            timing.add('thermal', 10**9 + int(offset_s * 1e9), 0)
        health.record_dropped(reason)
        report = report_of(health, timing=timing)
        assert (report.level, report.problem) == (WARN, 'no pairs')
        assert expected in report.message
    # What was reported is over unless it goes on.
    frame(health)
    assert report_of(health, timing=timing).level == OK


def test_images_of_one_camera_without_stamps_are_not_well(health):
    """Nothing is published, because stamps order the results of a single camera, too."""
    health.record_received('rgb')
    report = report_of(health, {'rgb_no_stamp': 1}, topics={'rgb': '/color'})
    assert (report.level, report.problem) == (WARN, 'no pairs')
    assert report.message == (
        'no images are used: the RGB driver gives no valid header.stamp: set sync.stamp to arrival'
    )
    health.record_received('rgb')
    health.record_pair(None)
    health.record_result(0.01, 'rgb')
    assert report_of(health, {'rgb_no_stamp': 1}, topics={'rgb': '/color'}).level == OK


@pytest.mark.parametrize('policy', ['approximate', 'exact'])
def test_the_policy_is_named_with_which_the_arrival_cannot_be_used(health, clock, policy):
    clock.now_s += 1.1
    health.record_received('rgb')
    timing = InputTiming(parse({'sync.policy': policy}))
    assert report_of(health, {'rgb_no_stamp': 1}, timing).message == (
        'no pairs: the RGB driver gives no valid header.stamp: set sync.policy to nearest and '
        'sync.stamp to arrival'
    )


@pytest.mark.parametrize('topics', [TOPICS, {'thermal': '/thermal'}])
def test_a_driver_that_repeats_one_stamp_is_named(health, clock, topics):
    """The offset between the stamps of the cameras, which then grows, explains nothing."""
    timing = InputTiming(Parameters())
    timing.add('thermal', 10**9, 0)
    clock.now_s += 2.1
    for number in range(1, 11):
        for camera in topics:
            health.record_received(camera)
        timing.add('rgb', (10 + number) * 10**9, number * 10**9)
    report = report_of(health, {'thermal_duplicate': 10}, timing, topics)
    assert report.problem == 'no pairs'
    assert report.message.endswith(
        ': the thermal driver gives all images the same stamp: set sync.stamp to arrival'
    )


def test_images_alone_are_no_pairs_where_both_topics_speak(health, clock):
    """A slow thermal camera with another clock looks like one that is always in a gap."""
    timing = InputTiming(Parameters())
    timing.add('rgb', 10**9, 0)
    timing.add('thermal', 10**18, 0)
    clock.now_s += 1.1
    for camera in ('rgb', 'thermal'):
        health.record_received(camera)
    health.record_pair(None)
    health.record_stalls('thermal_gap')
    health.record_result(0.01, 'rgb')
    report = report_of(health, timing=timing)
    assert report.problem == 'no pairs'
    assert 'set sync.stamp to arrival' in report.message
    assert '1 results from RGB alone' in report.message
    assert 'skew_max_ms' not in report.values


def test_bad_frames_turn_it_to_a_warning_with_the_last_error(health):
    frame(health)
    health.record_dropped('bad_frame', error='thermal: the image is 0x0 pixels')
    report = report_of(health)
    assert report.level == WARN
    assert 'thermal: the image is 0x0 pixels' in report.message


def test_results_without_their_other_outputs_are_a_warning(health):
    for _ in range(3):
        frame(health)
        health.record_missing_outputs('MemoryError: no memory for a PNG')
    report = report_of(health)
    assert report.level == WARN
    assert report.message == 'labels without all other outputs: MemoryError: no memory for a PNG'
    frame(health)
    assert report_of(health).level == OK


def test_failures_without_a_result_in_between_are_an_error(health):
    for number in range(1, 6):
        health.record_received('rgb')
        health.record_dropped('rgb_unreadable', error='rgb: too short')
        report = report_of(health)
        assert report.level == (WARN if number < 3 else ERROR)
        assert 'rgb: too short' in report.message
    assert report.problem == 'failing'
    assert report.message.startswith('no results, the last 5 attempts failed')
    frame(health)
    health.record_dropped('failed', error='no such kernel')
    assert report_of(health).level == WARN


def test_failures_further_apart_than_reports_stay_an_error(health, clock):
    """While memory is short, several seconds pass before the next attempt."""
    for _ in range(3):
        frame_in(health)
        health.record_dropped('out_of_memory', error='Tried to allocate 2.00 GiB')
    assert report_of(health).level == ERROR
    clock.now_s += 1.0
    frame_in(health)
    health.record_dropped('replaced')
    report = report_of(health)
    assert (report.level, report.problem) == (ERROR, 'failing')
    assert 'Tried to allocate 2.00 GiB' in report.message
    # Images without partners say more of the present than what failed earlier.
    clock.now_s += 1.1
    health.record_received('rgb')
    health.record_received('thermal')
    assert report_of(health).problem == 'no pairs'
    # The failures are those since the node was activated.
    health.restart_clocks()
    frame_in(health)
    assert report_of(health).level == OK


def test_pairs_that_newer_ones_replace_are_no_failures(health):
    for _ in range(5):
        frame_in(health)
    health.record_dropped('replaced', 5)
    assert health.recent({}).failures_in_row == 0
    assert report_of(health).problem == ''


def test_a_pair_that_stays_in_the_network_is_a_warning(health):
    frame_in(health)
    assert report_of(health, busy_s=BUSY_S).level == OK
    frame_in(health)
    report = report_of(health, busy_s=62.6)
    assert (report.level, report.problem) == (WARN, 'busy')
    assert report.message.startswith(
        'no results: the network has been at work on one pair for 63 s; engine compile takes'
    )


def test_failures_of_thermal_between_results_from_rgb_are_a_warning(health):
    """Thermal may be the faster camera."""
    frame(health)
    for _ in range(5):
        health.record_received('thermal')
        health.record_dropped('thermal_unreadable', error='thermal: too short')
    report = report_of(health)
    assert report.level == WARN
    assert 'thermal: too short' in report.message
    assert 'no results' not in report.message


@pytest.mark.parametrize(('share', 'level'), [(0.2, OK), (0.3, WARN)])
def test_more_than_a_quarter_that_sees_nothing_is_a_warning(health, share, level):
    frame(health)
    health.record_thermal(share, '')
    report = report_of(health)
    assert report.level == level
    assert report.message.startswith(f'{share:.0%} of the thermal image') == (level == WARN)


class OwnThermal(Thermal):
    name = 'lwir'


@pytest.mark.parametrize('x', ['thermal', 'lwir'])
def test_the_share_that_sees_nothing_is_known_also_of_images_that_are_not_used(monkeypatch, x):
    monkeypatch.setitem(MODALITIES, 'lwir', OwnThermal())
    warnings, health, settings = [], Health(x), Parameters(x_modality=x)
    observations = Observations(health, lambda _, text: warnings.append(text))
    rgb = np.zeros((6, 8, 3), np.uint8)
    images = UsableImages(rgb, None, 0, {'rgb': 'ok', x: 'flat'}, 'rgb', invalid_share=1.0)
    observations.record_images(images, settings)
    report = report_of(health, timing=InputTiming(settings), topics={'rgb': '/color', x: '/x'})
    assert report.values[f'{x}_invalid_percent'] == '100.0'
    assert any(text.startswith('100% of the thermal image') for text in warnings)


@pytest.mark.parametrize(('crop', 'keys'), [((0, 0, 0, 0), ['telemetry']), ((0, 0, 2, 0), [])])
def test_telemetry_is_hinted_at_until_there_is_a_crop(health, crop, keys):
    warned = []
    observations = Observations(health, lambda key, _: warned.append(key))
    states = {'rgb': 'ok', 'thermal': 'ok'}
    lepton = np.zeros((122, 160), np.uint16)
    images = UsableImages(np.zeros((6, 8, 3), np.uint8), lepton, 0, states, 'both')
    observations.record_images(images, Parameters(thermal_crop=crop))
    assert warned == keys


def test_the_last_error_has_an_age_and_the_modality_is_the_last_seconds(health, clock):
    assert report_of(health).values['last_error'] == report_of(health).values['modality'] == 'none'
    frame(health)
    health.record_result(0.01, 'rgb')
    health.record_dropped('failed', error='first')
    clock.now_s += 0.5
    health.record_dropped('failed', error='second')
    clock.now_s += 1.5
    values = report_of(health).values
    assert (values['last_error'], values['last_error_age_s']) == ('second', '1.5')
    assert values['modality'] == 'both, rgb'
    health.record_result(0.01, 'thermal')
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


def test_every_stall_has_a_hint():
    assert {name.removeprefix('depth_') for name in stall_counters('depth')} == set(STALL_HINTS)


def test_a_stall_is_a_warning_that_says_what_was_served(health, clock):
    frame(health)
    for _ in range(3):
        health.record_stalls('thermal_frozen')
        health.record_result(0.01, 'rgb')
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
    clock.now_s += START_UP_S
    health.record_received('rgb')
    for served, level in ((True, WARN), (False, ERROR)):
        health.record_stalls('thermal_gap')
        if served:
            health.record_result(0.01, 'rgb')
        report = report_of(health)
        assert report.level == level
        assert 'no messages on /thermal, why thermal' in report.message


def test_a_stall_without_any_result_says_so(health):
    frame_in(health)
    health.record_stalls('thermal_frozen')
    assert report_of(health).message.startswith(
        'thermal_frozen: 0 results from RGB and thermal, 0 results from RGB alone, '
        '0 results from thermal alone; '
    )


def test_a_stall_stays_a_warning_where_a_result_takes_longer_than_a_report(health, clock):
    timing = InputTiming(Parameters())
    health.record_stalls('thermal_gap')
    for second in range(20):
        clock.now_s += 1.0
        for _ in range(30):
            health.record_received('rgb')
            health.record_pair(None)
        if second % 3 == 0:
            health.record_result(0.01, 'rgb')
            health.record_stalls('thermal_gap')
        report = report_of(health, timing=timing)
        assert report.level == WARN
        if second >= 3:
            assert report.message.startswith('thermal_gap: ')
            assert '1 results from RGB' in report.message or (
                'the last result is from RGB alone' in report.message
            )
            assert 'no messages on /thermal, why thermal' in report.message
    # Not where pairs end without a result.
    health.record_dropped('stall_gap')
    health.record_stalls('thermal_gap')
    assert report_of(health).level == ERROR
    # Nor where no pairs come any more.
    health.record_result(0.01, 'rgb')
    assert report_of(health).level == WARN
    clock.now_s += 2.1
    report = report_of(health)
    assert (report.level, report.problem) == (ERROR, 'silent rgb thermal')


def test_a_stall_of_images_that_arrive_stays_a_warning_between_results(health, clock):
    for served in (True, False, False, True, False):
        clock.now_s += 1.0
        frame_in(health)
        if served:
            health.record_result(0.01, 'rgb')
        health.record_stalls('thermal_frozen')
        report_of(health)
        clock.now_s += 1.0
        health.record_received('rgb')
        health.record_received('thermal')
        health.record_pair(0)
        report = report_of(health)
        assert report.level == WARN
        assert 'the image does not change' in report.message


def test_a_stall_from_before_a_restart_is_over(health, clock):
    frame_in(health)
    health.record_result(0.01, 'rgb')
    health.record_stalls('thermal_frozen')
    assert report_of(health).level == WARN
    clock.now_s += 60.0
    health.restart_clocks()
    assert report_of(health).level == OK
    # Nor does the result from before count as one that comes despite failures.
    for _ in range(3):
        health.record_received('rgb')
        health.record_dropped('rgb_unreadable', error='rgb: too short')
    assert report_of(health).level == ERROR


def test_messages_that_cannot_be_read_are_no_gap(health):
    """The pairs lack their image as if it had not arrived."""
    health.record_received('rgb')
    health.record_pair(None)
    health.record_stalls('thermal_gap')
    for _ in range(4):
        health.record_received('thermal')
        health.record_dropped('thermal_unreadable', error='thermal: too short')
    health.record_result(0.01, 'rgb')
    report = report_of(health)
    assert report.level == WARN
    assert report.message.startswith('thermal_gap: ')
    assert report.message.endswith(
        '/thermal: the messages cannot be read; the last error follows. thermal: too short'
    )


@pytest.mark.parametrize('interval_s', [0.5, 2, 5])
@pytest.mark.parametrize('stamp', ['header', 'arrival'])
def test_a_slow_camera_is_well(health, clock, interval_s, stamp):
    """With pairs as rare as its images; it is missed after two of them.

    Its images come by turns a tenth of the interval late and in time, and have no stamps where the
    arrival counts.
    """
    timing = InputTiming(Parameters(stall_after_s=60.0, sync_stamp=stamp))
    reports = []
    due = {round((number + number % 2 / 10) * interval_s * 20) for number in range(80)}
    for tick in range(800):  # of 0.05 s
        clock.now_s += 0.05
        time_ns = int(clock.now_s * 1e9)
        if tick % 10 == 0:
            health.record_received('rgb')
            timing.add('rgb', time_ns, time_ns)
        if tick in due:
            timing.add('thermal', time_ns if stamp == 'header' else 0, time_ns)
            frame(health)
        if tick % 10 == 9:
            reports.append(report_of(health, timing=timing))
    assert {report.level for report in reports[-40:]} == {OK}
    reports.clear()
    while not reports or reports[-1].level == OK:
        clock.now_s += 1.0
        health.record_received('rgb')
        reports.append(report_of(health, timing=timing))
    assert len(reports) <= 2 * interval_s + 2


def reports_of_two_rates(clock, fast, slow, interval, settings, *, slow_end=900):
    """Yield a report a second of 900 images of one camera and every few of the other, at 30 Hz."""
    health, timing, matcher = Health('thermal'), InputTiming(settings), make_pair_matcher(settings)
    for index in range(900):
        clock.now_s += 1 / 30
        time_ns = round(clock.now_s * 1e9)
        is_slow_due = index % interval == 0 and index < slow_end
        for camera in (slow, fast) if is_slow_due else (fast,):
            health.record_received(camera)
            timing.add(camera, time_ns if settings.sync_stamp == 'header' else 0, time_ns)
            add = matcher.add_rgb if camera == 'rgb' else matcher.add_x
            for pair in add(time_ns, camera, time_ns):
                alone = pair.rgb is None or pair.x is None
                health.record_pair(None if alone else pair.skew_ns)
                health.record_stalls(*([f'{slow}_gap'] if alone else []))
                health.record_result(0.01, fast if alone else 'both')
        if index % 30 == 29:
            yield report_of(health, timing=timing)


@pytest.mark.parametrize(('interval', 'rate'), [(10, '3'), (15, '2')])
@pytest.mark.parametrize(('fast', 'slow'), [('rgb', 'thermal'), ('thermal', 'rgb')])
@pytest.mark.parametrize('stamp', ['header', 'arrival'])
def test_a_camera_too_slow_for_stall_after_is_not_called_broken(
    clock, fast, slow, interval, rate, stamp
):
    """The message says its rate and a value with which all is well."""
    settings = Parameters(sync_stamp=stamp, rgb_on_stall='thermal_only')
    advice = (
        f'{TOPICS[slow]}: a camera of {rate} Hz is slower than stall_after, 0.3 s, allows: '
        'set stall_after to '
    )
    found = [*reports_of_two_rates(clock, fast, slow, interval, settings)][2:]
    assert {report.level for report in found} == {WARN}
    values_s = {float(report.message.partition(advice)[2]) for report in found}
    assert all(2 * interval / 30 <= value_s <= 2 * interval / 30 + 0.1001 for value_s in values_s)
    for value_s in values_s:
        mended = replace(settings, stall_after_s=value_s)
        reports = [*reports_of_two_rates(clock, fast, slow, interval, mended)]
        assert {report.level for report in reports} == {OK}
    # Its images end with 1.4 s to go.
    *_, last = reports_of_two_rates(clock, fast, slow, interval, settings, slow_end=858)
    assert 'a loose cable?' in last.message


def test_the_message(health):
    pytest.importorskip('diagnostic_msgs', reason='needs ROS 2 (diagnostic_msgs)')
    from builtin_interfaces.msg import Time

    from sartm_ros.diagnosis.diagnostics import to_message

    frame(health)
    message = to_message(report_of(health), 'sartm: inference', 'cpu', Time(sec=5))
    (status,) = message.status
    assert message.header.stamp.sec == 5
    assert (status.level, status.name, status.hardware_id) == (b'\x00', 'sartm: inference', 'cpu')
    assert {item.key: item.value for item in status.values}['pairs_out'] == '1'


@pytest.fixture
def logs(monkeypatch):
    """A `Diagnostics`, a function that sets its time, and the texts that it has logged."""
    pytest.importorskip('diagnostic_msgs', reason='needs ROS 2 (diagnostic_msgs)')
    from builtin_interfaces.msg import Time

    from sartm_ros.diagnosis import diagnostics

    now_s, logged = [0.0], []
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now_s[0])
    logger = SimpleNamespace(
        warning=lambda text: logged.append(f'WARN {text}'),
        error=lambda text: logged.append(f'ERROR {text}'),
    )
    clock = SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))
    node = SimpleNamespace(
        create_publisher=lambda *_: SimpleNamespace(publish=lambda message: None),
        get_logger=lambda: logger,
        get_clock=lambda: clock,
        get_fully_qualified_name=lambda: '/sartm',
    )

    def set_time(value_s):
        now_s[0] = value_s

    return diagnostics.Diagnostics(node), set_time, logged


def test_a_repeated_warning_is_logged_ever_more_rarely(logs):
    reporter, set_time, logged = logs
    for second in range(300):
        set_time(second)
        reporter.warn('bad_frame', f'at {second}')
    assert logged == [f'WARN at {second}' for second in (0, 5, 15, 35, 75, 155)]
    logged.clear()
    reporter.warn('nan', 'another')
    set_time(299 + 31)
    reporter.warn('bad_frame', 'anew')
    assert logged == ['WARN another', 'WARN anew']


def test_a_dropped_rgb_image_is_logged_while_thermal_cannot_be_read(logs, health):
    reporter, set_time, logged = logs
    observations, failures = Observations(health, reporter.warn), Failures(health, reporter.warn)
    states = {'rgb': 'ok', 'thermal': 'unreadable'}
    rgb = np.zeros((6, 8, 3), np.uint8)
    images = UsableImages(rgb, None, 0, states, 'rgb', SartmError('thermal: too short'))
    observations.record_images(images, Parameters())
    set_time(1)
    failures.handle(SartmError('RGB: too short'))
    assert logged[-2:] == [
        'WARN thermal is not used: thermal: too short',
        'WARN frame dropped: RGB: too short',
    ]


class WatchedText(str):
    """A text to which there can be weak references."""


def test_problems_that_are_over_take_no_memory(logs):
    """The text of a QoS mismatch names the node, and each `ros2 topic echo` has another name."""
    reporter, set_time, logged = logs
    kept = weakref.WeakSet()
    for number in range(1000):
        set_time(10 * number)
        text = WatchedText(f'incompatible with /_ros2cli_{number}')
        kept.add(text)
        reporter.publish(Report(OK, 'well'), [text], None)
    assert len(logged) == 1000
    assert len(kept) < 10


def test_two_threads_may_warn_at_once(logs):
    """The inference thread warns of images while the executor's warns of endpoints."""
    reporter, set_time, logged = logs
    both_look = threading.Barrier(2, timeout=0.5)

    class Meeting(str):
        """The key of a problem at which both threads meet, if they may look it up together."""

        def __hash__(self):
            if logged:  # not where one thread alone has it kept, below
                with contextlib.suppress(threading.BrokenBarrierError):
                    both_look.wait()
            return super().__hash__()

    reporter.warn(Meeting('over'), 'over')
    set_time(1000)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(reporter.warn, key, key) for key in ('image', 'endpoint')]
    assert [call.exception() for call in calls] == [None, None]
    assert sorted(logged) == ['WARN endpoint', 'WARN image', 'WARN over']


def test_a_problem_of_the_reports_is_logged_once_it_lasts(logs):
    reporter, set_time, logged = logs
    good = Report(OK, 'well')
    bad = Report(WARN, 'no pairs: why', problem='no pairs')
    worse = Report(ERROR, 'no messages', problem='silent rgb')
    for second, report in enumerate([bad, bad, good, bad, bad, bad, bad, worse, worse, worse]):
        set_time(second)
        reporter.publish(report, [], None)
    assert logged == ['WARN no pairs: why']
    set_time(10)
    reporter.publish(worse, [], None)
    assert logged == ['WARN no pairs: why', 'ERROR no messages']
