"""The pair matcher in the cases that go wrong in the field."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from sartm_ros.settings.ros_parameters import parse
from sartm_ros.sync.frame_stream import FrameStream, WaitingMessage
from sartm_ros.sync.matching import make_pair_matcher
from sartm_ros.sync.pair_matcher import Pair, PairMatcher

MS = 1_000_000
SECOND = 1000 * MS


def feed(matcher, rgb, thermal, *, delay_rgb=0, delay_thermal=0, flush=True) -> list[Pair]:
    """Give both streams' stamps in the order of arrival (stamp + delay); messages are the stamps.

    A frame is also polled for when its deadline passes, as the node's timer does.
    """
    events = [(stamp + delay_rgb, 0, stamp) for stamp in rgb]
    events += [(stamp + delay_thermal, 1, stamp) for stamp in thermal]
    pairs = []
    for now, topic, stamp in sorted(events):
        while matcher.deadline_ns is not None and matcher.deadline_ns <= now:
            pairs += matcher.poll(matcher.deadline_ns)
        add = matcher.add_x if topic else matcher.add_rgb
        pairs += add(stamp, stamp, now)
    if flush:
        while matcher.deadline_ns is not None:
            pairs += matcher.poll(matcher.deadline_ns)
    return pairs


def stamps(pairs):
    return [(pair.rgb, pair.x) for pair in pairs]


def steady(hertz, seconds, start_ns=SECOND):
    return [start_ns + round(i * SECOND / hertz) for i in range(int(seconds * hertz))]


def unaccounted(matcher, rgb, thermal, pairs):
    """Frames that are neither in the pairs nor counted as dropped: (RGB, thermal)."""
    matcher.stop()
    dropped = {'rgb': 0, 'thermal': 0}
    for reason, count in matcher.drops.items():
        dropped[reason.split('_')[0]] += count
    served = {pair.x for pair in pairs}
    return rgb - len(pairs) - dropped['rgb'], thermal - len(served) - dropped['thermal']


def nearest(value, candidates):
    return min(candidates, key=lambda candidate: abs(candidate - value))


def test_equal_stamps_are_paired_at_once():
    matcher = PairMatcher(10 * MS, 100 * MS, x_name='thermal')
    for stamp in steady(30, 3):
        assert matcher.add_rgb(stamp, 'rgb', stamp) == []
        (pair,) = matcher.add_x(stamp, 'thermal', stamp + 5)
        assert pair == Pair('rgb', 'thermal', stamp, 0, stamp)
    assert not matcher.drops


@pytest.mark.parametrize('phase_ms', [-14, -3, 3, 14])
def test_a_partner_is_not_held_back_for_one_that_is_not_due(phase_ms):
    """Once the rates are known a pair leaves with its later message, not a frame later."""
    rgb = steady(30, 2)
    thermal = [stamp + phase_ms * MS for stamp in rgb]
    matcher = PairMatcher(20 * MS, 100 * MS, x_name='thermal')
    feed(matcher, rgb, thermal, flush=False)
    later = rgb[-1] + round(SECOND / 30)
    calls = sorted([(later, matcher.add_rgb), (later + phase_ms * MS, matcher.add_x)])
    first, second = (call(stamp, stamp, stamp) for stamp, call in calls)
    assert first == []
    assert stamps(second) == [(later, later + phase_ms * MS)]


def test_thirty_and_nine_hertz_reach_the_least_skew_possible():
    rgb, thermal = steady(30, 20), steady(9, 20, SECOND + 11 * MS)
    matcher = PairMatcher(50 * MS, 200 * MS, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    expected = [(nearest(t, rgb), t) for t in thermal]
    assert stamps(pairs) == expected
    assert unaccounted(matcher, len(rgb), len(thermal), pairs) == (0, 0)


def test_reuse_keeps_the_rgb_rate():
    rgb, thermal = steady(30, 20), steady(9, 20, SECOND + 11 * MS)
    matcher = PairMatcher(60 * MS, 200 * MS, reuse_x=True, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    assert stamps(pairs) == [(r, nearest(r, thermal)) for r in rgb if r < thermal[-1] + 60 * MS]


def test_reuse_never_releases_more_than_two_frames_at_once():
    """The slot after the matcher holds one pair while one is worked on; a third would be lost."""
    matcher = PairMatcher(60 * MS, 200 * MS, reuse_x=True, x_name='thermal')
    feed(matcher, steady(30, 5), steady(9, 5), flush=False)
    events = [(s, matcher.add_rgb) for s in steady(30, 10, 6 * SECOND)]
    events += [(s, matcher.add_x) for s in steady(9, 10, 6 * SECOND + 7 * MS)]
    assert max(len(add(s, s, s)) for s, add in sorted(events, key=lambda e: e[0])) <= 2


def test_half_an_interval_apart_loses_no_frame_to_jitter():
    """Two 30 Hz cameras 16.7 ms apart, jitter of +-2 ms: which neighbour is nearest alternates."""
    rgb = steady(30, 20)
    jitter_ms = (0, 2, -2, 1, -1, 2, 2, -2, 0, -2)
    thermal = [
        r + round(SECOND / 60) + jitter_ms[i % len(jitter_ms)] * MS for i, r in enumerate(rgb)
    ]
    matcher = PairMatcher(25 * MS, 100 * MS, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    assert len(pairs) >= len(rgb) - 1
    assert unaccounted(matcher, len(rgb), len(thermal), pairs) == (0, 0)


def test_a_lost_thermal_frame_does_not_shift_the_rest():
    rgb = steady(30, 5)
    thermal = [r + 3 * MS for i, r in enumerate(rgb) if i not in (50, 51, 90)]
    matcher = PairMatcher(50 * MS, 100 * MS, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    assert all(pair.skew_ns == 3 * MS for pair in pairs)
    assert len(pairs) == len(thermal)
    # The first of two in a row has no thermal frame within reach at all.
    assert matcher.drops == {'rgb_partner_taken': 2, 'rgb_no_partner': 1}


def test_a_lost_rgb_frame_does_not_shift_the_rest():
    thermal = steady(30, 5)
    rgb = [t + 3 * MS for i, t in enumerate(thermal) if i not in (50, 51, 90)]
    matcher = PairMatcher(50 * MS, 100 * MS, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    assert all(pair.skew_ns == -3 * MS for pair in pairs)
    assert len(pairs) == len(rgb)
    assert matcher.drops == {'thermal_unused': 3}


def test_as_many_frames_wait_as_the_parameter_says():
    matcher = make_pair_matcher(parse({'sync.queue_size': 3}))
    for stamp in range(1, 6):
        assert matcher.add_rgb(stamp, 'rgb', stamp) == []
    assert matcher.drops == {'rgb_overflow': 2}


def test_before_a_jump_back_in_time_any_nearer_frame_may_still_come():
    stream = FrameStream('thermal')
    stream.append(WaitingMessage(2 * SECOND, 'thermal', 0))
    assert not stream.may_still_come(SECOND, 1)
    stream.jump_expected = True
    assert stream.may_still_come(SECOND, 1)
    assert not stream.may_still_come(SECOND, 0)


@pytest.mark.parametrize('sign', [-1, 1])
def test_max_skew_itself_is_allowed_and_one_nanosecond_more_is_not(sign):
    for skew, expected in ((10 * MS, 1), (10 * MS + 1, 0)):
        matcher = PairMatcher(10 * MS, 50 * MS, x_name='thermal')
        pairs = feed(matcher, [SECOND], [SECOND + sign * skew, 2 * SECOND])
        assert len(pairs) == expected


def test_max_skew_may_change_at_run_time():
    matcher = PairMatcher(5 * MS, 50 * MS, x_name='thermal')
    assert feed(matcher, [SECOND], [SECOND + 8 * MS]) == []
    matcher.max_skew_ns = 10 * MS
    assert len(feed(matcher, [2 * SECOND], [2 * SECOND + 8 * MS])) == 1


def test_waits_no_longer_than_max_wait():
    matcher = PairMatcher(20 * MS, 40 * MS, x_name='thermal')
    matcher.add_x(SECOND - 5 * MS, 'early', 0)
    assert matcher.add_rgb(SECOND, 'rgb', 0) == []
    assert matcher.deadline_ns == 40 * MS
    assert matcher.poll(40 * MS - 1) == []
    (pair,) = matcher.poll(40 * MS)
    assert pair.x == 'early'
    assert matcher.deadline_ns is None


def test_waits_for_the_nearer_partner():
    matcher = PairMatcher(20 * MS, 40 * MS, x_name='thermal')
    matcher.add_x(SECOND - 5 * MS, 'early', 0)
    assert matcher.add_rgb(SECOND, 'rgb', 0) == []
    (pair,) = matcher.add_x(SECOND + 1 * MS, 'near', 3 * MS) or matcher.poll(40 * MS)
    assert pair.x == 'near'


def test_no_partner_in_time_is_told_from_no_partner_at_all():
    matcher = PairMatcher(10 * MS, 40 * MS, x_name='thermal')
    assert feed(matcher, [SECOND, 2 * SECOND], [SECOND + 20 * MS]) == []
    assert matcher.drops['rgb_no_partner'] == 1
    assert matcher.drops['rgb_timeout'] == 1


def test_thermal_offset_is_added():
    matcher = PairMatcher(5 * MS, 50 * MS, x_offset_ns=-120 * MS, x_name='thermal')
    pairs = feed(matcher, steady(30, 2), steady(30, 2, SECOND + 121 * MS), delay_rgb=200 * MS)
    assert len(pairs) == 60
    assert {pair.skew_ns for pair in pairs} == {1 * MS}


@pytest.mark.parametrize('stamp', [0, -1, -5 * SECOND])
def test_messages_without_a_stamp_are_counted(stamp):
    matcher = PairMatcher(10 * MS, 40 * MS, x_offset_ns=10 * SECOND, x_name='thermal')
    assert matcher.add_rgb(stamp, 'rgb', 0) == matcher.add_x(stamp, 'thermal', 0) == []
    assert matcher.drops == {'rgb_no_stamp': 1, 'thermal_no_stamp': 1}
    assert matcher.deadline_ns is None


def test_duplicates_and_overtaken_messages_are_counted():
    matcher = PairMatcher(10 * MS, 40 * MS, x_name='thermal')
    rgb, thermal = steady(30, 1), steady(30, 1)
    pairs = []
    for r, t in zip(rgb, thermal, strict=True):
        for stamp in (r, r, r - 20 * MS):
            pairs += matcher.add_rgb(stamp, stamp, r)
        for stamp in (t, t, t - 20 * MS):
            pairs += matcher.add_x(stamp, stamp, t)
    assert stamps(pairs) == list(zip(rgb, thermal, strict=True))
    # Below 100 ms late is overtaken; 30 of each kind and topic.
    assert matcher.drops == {
        f'{topic}_{reason}': 30
        for topic in ('rgb', 'thermal')
        for reason in ('duplicate', 'out_of_order')
    }


@pytest.mark.parametrize('lag_ms', [-60, 0, 60])
def test_a_bag_that_loops_goes_on_after_each_jump(lag_ms):
    """`lag_ms`: how much later than RGB the thermal stream comes to the jump."""
    rgb, thermal = steady(30, 3), steady(30, 3, SECOND + 4 * MS)
    lag, length = lag_ms * MS, 3 * SECOND
    events = []
    for loop in range(4):
        events += [(loop * length + r, 'rgb', r) for r in rgb]
        events += [(loop * length + t + lag, 'x', t) for t in thermal]
    matcher = PairMatcher(20 * MS, 100 * MS, x_name='thermal')
    pairs = []
    for now, topic, stamp in sorted(events):
        pairs += getattr(matcher, f'add_{topic}')(stamp, stamp, now)
    pairs += matcher.poll(10 * length)
    assert all(pair.skew_ns == 4 * MS for pair in pairs)
    # What still waits at a jump is lost, one frame each time: its partner is on the other side.
    lost = 3 if lag else 0
    assert len(pairs) == 4 * 90 - lost
    assert +matcher.drops == +Counter(rgb_reset=lost, thermal_reset=lost)
    loops = [[]]
    for before, after in pairwise([pairs[0], *pairs]):
        if after.stamp_ns < before.stamp_ns:
            loops.append([])
        loops[-1].append(after)
    assert len(loops) == 4


def test_one_stamp_from_the_far_future_costs_a_few_frames_only():
    rgb, thermal = steady(30, 4), steady(30, 4, SECOND + 4 * MS)
    rgb[60] = 10**18
    matcher = PairMatcher(20 * MS, 100 * MS, x_name='thermal')
    pairs = []
    for i, (r, t) in enumerate(zip(rgb, thermal, strict=True)):
        now = i * 33 * MS
        early = matcher.add_rgb(r, r, now)
        on_time = matcher.add_x(t, t, now + 4 * MS)
        pairs += early + on_time
        # Once the rates are known again, a pair leaves with its later message.
        if i > 70:
            assert early == []
            assert stamps(on_time) == [(r, t)]
    assert len(pairs) >= 112


def test_memory_is_bounded_when_one_topic_is_silent():
    matcher = PairMatcher(20 * MS, 10 * SECOND, queue_size=8, x_name='thermal')
    for stamp in steady(30, 10):
        matcher.add_x(stamp, stamp, stamp)
    assert matcher.drops == {'thermal_overflow': 292}
    matcher = PairMatcher(20 * MS, 100 * SECOND, queue_size=8, x_name='thermal')
    for stamp in steady(30, 10):
        matcher.add_rgb(stamp, stamp, stamp)
    assert matcher.drops == {'rgb_overflow': 292}


def test_a_reused_frame_that_leaves_a_full_queue_is_not_lost():
    """Between two RGB frames more thermal frames come than the queue holds."""
    rgb, thermal = steady(2, 3), steady(30, 3)
    matcher = PairMatcher(20 * MS, 100 * MS, reuse_x=True, queue_size=4, x_name='thermal')
    pairs = feed(matcher, rgb, thermal)
    assert stamps(pairs) == [(stamp, stamp) for stamp in rgb]
    assert matcher.drops['thermal_overflow'] > 0
    assert unaccounted(matcher, len(rgb), len(thermal), pairs) == (0, 0)


def with_gaps(matcher, after_ms=300):
    """Let either stream go out alone in the other's gaps."""
    matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = after_ms * MS
    return matcher


def test_rgb_goes_out_alone_in_a_gap_of_thermal_and_pairs_again_after_it():
    rgb, thermal = steady(30, 6), steady(30, 6, SECOND + 2 * MS)
    heard = [t for t in thermal if not 3 * SECOND < t < 5 * SECOND]
    matcher = with_gaps(PairMatcher(10 * MS, 100 * MS, x_name='thermal'))
    pairs = feed(matcher, rgb, heard)
    back = next(t for t in heard if t > 4 * SECOND)  # its RGB frame has gone out before it came
    assert {p.x for p in pairs} - {None} == set(heard) - {back}
    alone = [p for p in pairs if p.x is None]
    first = 3 * SECOND
    # From 300 ms after the first that missed its partner; what then waits goes out as well.
    assert [p.rgb for p in alone] == [r for r in rgb if first + 200 * MS < r < back]
    assert all((p.stamp_ns, p.skew_ns, p.arrival_ns) == (p.rgb, 0, p.rgb) for p in alone)
    assert all(before.stamp_ns < after.stamp_ns for before, after in pairwise(pairs))
    # Until the gap was one, frames were lost as they are without the setting.
    assert matcher.drops['rgb_timeout'] + matcher.drops['rgb_no_partner'] == len(rgb) - len(pairs)


def test_rgb_goes_out_alone_where_thermal_never_comes():
    rgb = steady(30, 2)
    pairs = feed(with_gaps(PairMatcher(10 * MS, 100 * MS, x_name='thermal')), rgb, [])
    assert stamps(pairs) == [(r, None) for r in rgb if r > rgb[0] + 200 * MS]
    assert feed(PairMatcher(10 * MS, 100 * MS, x_name='thermal'), rgb, []) == []


def test_thermal_goes_out_alone_in_a_gap_of_rgb_and_pairs_again_after_it():
    rgb, thermal = steady(30, 6), steady(9, 6, SECOND + 2 * MS)
    heard = [r for r in rgb if not 3 * SECOND < r < 5 * SECOND]
    matcher = with_gaps(PairMatcher(20 * MS, 100 * MS, x_offset_ns=5 * MS, x_name='thermal'))
    pairs = feed(matcher, heard, thermal)
    alone = [p for p in pairs if p.rgb is None]
    missed = [t for t in thermal if 3 * SECOND < t < 5 * SECOND]
    # 300 ms at 9 Hz are the fourth frame that comes without RGB.
    assert {p.x for p in alone} == set(missed[3:])
    assert all((p.stamp_ns, p.skew_ns) == (p.x + 5 * MS, 0) for p in alone)
    assert all(before.stamp_ns < after.stamp_ns for before, after in pairwise(pairs))
    assert pairs[-1].rgb > 6.8 * SECOND
    assert all(p.x is not None for p in pairs)  # RGB is faster, and thermal never in a gap


def test_rgb_that_comes_back_earlier_than_thermal_has_gone_out_is_late():
    matcher = with_gaps(PairMatcher(5 * MS, 100 * MS, x_name='thermal'))
    thermal = steady(30, 1)
    pairs = feed(matcher, [], thermal)
    last = pairs[-1].stamp_ns
    assert (pairs[-1].rgb, last) == (None, thermal[-1])
    assert matcher.add_rgb(last - 20 * MS, 'late', last) == []
    assert matcher.drops['rgb_late'] == 1
    assert matcher.add_rgb(last + 33 * MS, 'rgb', last + 33 * MS) == []
    assert matcher.add_x(last + 34 * MS, 'thermal', last + 34 * MS) == []
    (pair,) = matcher.poll(last + 133 * MS)
    assert (pair.rgb, pair.x) == ('rgb', 'thermal')


@pytest.mark.parametrize('silent', ['rgb', 'thermal'])
@pytest.mark.parametrize('lag_ms', [-450, -250, 250, 450])
def test_stamps_increase_at_a_gap_where_one_stream_lags(silent, lag_ms):
    """`lag_ms`: how much later than RGB thermal arrives, still within `max_skew`."""
    long, short = steady(30, 6), [t for t in steady(30, 6) if not 3 * SECOND < t < 5 * SECOND]
    rgb, thermal = (short, long) if silent == 'rgb' else (long, short)
    matcher = with_gaps(PairMatcher(500 * MS, 100 * MS, x_name='thermal'))
    delays = {'delay_rgb': max(0, -lag_ms) * MS, 'delay_thermal': max(0, lag_ms) * MS}
    pairs = feed(matcher, rgb, thermal, **delays)
    assert len(pairs) > 100
    assert any(None in (pair.rgb, pair.x) for pair in pairs)
    assert all(before.stamp_ns < after.stamp_ns for before, after in pairwise(pairs))


def test_a_bag_that_is_played_slowly_has_no_gaps():
    rgb, thermal = steady(30, 4), steady(9, 4, SECOND + 2 * MS)
    matcher = with_gaps(PairMatcher(60 * MS, SECOND, reuse_x=True, x_name='thermal'))
    pairs = []
    for stamp, add in sorted(
        [(r, matcher.add_rgb) for r in rgb] + [(t, matcher.add_x) for t in thermal],
        key=lambda event: event[0],
    ):
        pairs += add(stamp, stamp, 20 * stamp)
    assert len(pairs) > 100
    assert all(p.x is not None for p in pairs)


@pytest.mark.parametrize('first', ['rgb', 'x'])
def test_a_pause_of_both_is_no_gap(first):
    """A computer that stood still: the stream that comes back first is not alone.

    The other one has lost its last frame before the pause, so it misses frames on both sides.
    """
    second = 'x' if first == 'rgb' else 'rgb'
    matcher = with_gaps(PairMatcher(20 * MS, 100 * MS, x_name='thermal'))
    pairs = []
    before = steady(30, 1)
    for stamp in before + steady(30, 1, 12 * SECOND):
        pairs += getattr(matcher, f'add_{first}')(stamp, stamp, stamp)
        if stamp != before[-1]:
            pairs += getattr(matcher, f'add_{second}')(stamp, stamp, stamp + 9 * MS)
    assert len(pairs) == 59
    assert all(p.rgb == p.x for p in pairs)


def test_clocks_that_differ_are_no_gap():
    """Both come, but no pair can be made: that is for the diagnostics, not for RGB alone."""
    matcher = with_gaps(PairMatcher(10 * MS, 100 * MS, x_name='thermal'))
    assert feed(matcher, steady(30, 3), steady(30, 3), delay_rgb=5 * SECOND) != []
    matcher = with_gaps(PairMatcher(10 * MS, 100 * MS, x_offset_ns=90 * SECOND, x_name='thermal'))
    assert feed(matcher, steady(30, 3), steady(30, 3)) == []


def test_a_loop_of_the_bag_in_a_gap_goes_on():
    matcher = with_gaps(PairMatcher(10 * MS, 100 * MS, x_name='thermal'))
    pairs, now = [], 0
    for stamp in steady(30, 3) * 2:
        now += 33 * MS
        pairs += matcher.add_x(stamp, stamp, now)
    assert len(pairs) == 2 * (90 - 9)  # each time anew the first 300 ms
    # RGB comes back after it: its own jump, if it has one, is no other.
    assert matcher.add_rgb(SECOND + 2970 * MS, 'rgb', now) == []


def test_rgb_that_does_not_come_back_after_a_loop_of_the_bag_is_in_a_gap():
    matcher = with_gaps(PairMatcher(20 * MS, 100 * MS, x_name='thermal'))
    thermal = steady(30, 3, SECOND + 4 * MS)
    assert len(feed(matcher, steady(30, 3), thermal)) == 90
    for loop in range(1, 4):
        alone = []
        for stamp in thermal:
            alone += matcher.add_x(stamp, stamp, stamp + 3 * loop * SECOND)
        late = [stamp for stamp in thermal if stamp - thermal[0] >= 300 * MS]
        assert stamps(alone) == [(None, stamp) for stamp in late]


@pytest.mark.parametrize('camera', ['rgb', 'thermal'])
def test_the_images_of_a_single_camera_are_output_at_once(camera):
    matcher = PairMatcher(50 * MS, 100 * MS, x_name='thermal')
    matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = 0
    add = matcher.add_rgb if camera == 'rgb' else matcher.add_x
    given_stamps = [
        SECOND,
        SECOND + 33 * MS,
        SECOND + 33 * MS,
        SECOND + 20 * MS,
        SECOND + 66 * MS,
        0,
    ]
    found = [add(stamp, stamp, now) for now, stamp in enumerate(given_stamps)]
    assert [[pair.stamp_ns for pair in pairs] for pairs in found] == [
        [SECOND], [SECOND + 33 * MS], [], [], [SECOND + 66 * MS], []
    ]  # fmt: skip
    counted = {f'{camera}_{reason}': 1 for reason in ('duplicate', 'out_of_order', 'no_stamp')}
    assert matcher.drops == counted
    assert matcher.deadline_ns is None
    # A bag that begins again.
    [[pair], [other]] = add(SECOND // 2, 0, 9), add(SECOND // 2 + MS, 0, 10)
    assert (pair.stamp_ns, other.stamp_ns) == (SECOND // 2, SECOND // 2 + MS)
    matcher.stop()
    assert +matcher.drops == counted  # no image waits
