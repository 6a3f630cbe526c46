"""Properties of the pair matcher for any arrivals, compared with brute force."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple
from weakref import WeakSet

import pytest

pytest.importorskip('hypothesis', reason='needs hypothesis')

from hypothesis import given, settings
from hypothesis import strategies as st

from sartm_ros.sync.pair_matcher import REORDER_NS, PairMatcher

MS = 1_000_000
SECOND = 1000 * MS
INTERVAL = 33 * MS


class Message:
    """A message; weak references count those that are alive."""

    def __init__(self, topic: str, stamp_ns: int, arrival_ns: int, index: int) -> None:
        self.topic, self.stamp_ns, self.arrival_ns = topic, stamp_ns, arrival_ns
        self.index = index  # in the order of arrival, of both topics


class Out(NamedTuple):
    """A pair as indices of its messages, and the time of its output."""

    rgb: int | None
    thermal: int | None
    stamp_ns: int
    skew_ns: int
    at_ns: int
    arrived: int  # number of messages that had arrived by then


def play(matcher, events, *, keep=True):
    """Give (arrival, topic, stamp) in order to the matcher, and poll at its deadlines.

    Returns the pairs, the messages (none with keep=False) and how many were alive at most.
    """
    outs, messages, alive, most = [], [], WeakSet(), 0

    def note(pairs, at_ns, arrived):
        for pair in pairs:
            rgb, thermal = (m and m.index for m in (pair.rgb, pair.x))
            outs.append(Out(rgb, thermal, pair.stamp_ns, pair.skew_ns, at_ns, arrived))

    def run_deadlines(until_ns, arrived):
        while matcher.deadline_ns is not None and matcher.deadline_ns <= until_ns:
            deadline = matcher.deadline_ns
            note(matcher.poll(deadline), deadline, arrived)
            assert matcher.deadline_ns is None or matcher.deadline_ns > deadline

    for index, (arrival, topic, stamp) in enumerate(events):
        run_deadlines(arrival, index)
        message = Message(topic, stamp, arrival, index)
        alive.add(message)
        if keep:
            messages.append(message)
        add = matcher.add_rgb if topic == 'rgb' else matcher.add_x
        note(add(stamp, message, arrival), arrival, index + 1)
        del message
        most = max(most, len(alive))
    run_deadlines(10**30, len(events))
    return outs, messages, most


@st.composite
def any_arrivals(draw):
    """Frames in any order, with jitter, duplicates, zero and negative stamps, and jumps of time."""
    clock, now, events = 100 * SECOND, 0, []
    steps = st.tuples(
        st.sampled_from(['rgb', 'thermal'] * 8 + ['jump', 'none']),
        st.integers(0, 50),
        st.integers(-60, 60),
        st.integers(-20_000, 20_000),
    )
    for kind, step, jitter, jump in draw(st.lists(steps, max_size=80)):
        now += step * MS
        clock += step * MS
        if kind == 'jump':
            clock += jump * MS
        elif kind == 'none':
            events.append((now, draw(st.sampled_from(['rgb', 'thermal'])), min(0, jitter)))
        else:
            events.append((now, kind, clock + jitter * MS))
    return events


def accepted(messages, topic):
    """Indices of a topic's messages that a reader in order may take, and those that jump back."""
    last, taken, jumps = None, [], []
    for message in messages:
        if message.topic != topic or message.stamp_ns <= 0:
            continue
        if last is not None and last - REORDER_NS <= message.stamp_ns <= last:
            continue
        if last is not None and message.stamp_ns < last:
            jumps.append(message.index)
        last = message.stamp_ns
        taken.append(message.index)
    return taken, jumps


limits = st.fixed_dictionaries(
    {
        'max_skew_ns': st.integers(0, 60).map(lambda ms: ms * MS),
        'max_wait_ns': st.integers(0, 150).map(lambda ms: ms * MS),
        'x_offset_ns': st.sampled_from([0, 0, 7 * MS, -40 * MS]),
        'reuse_x': st.booleans(),
        'queue_size': st.integers(2, 12),
    }
)


@settings(max_examples=300)
@given(any_arrivals(), limits)
def test_promises_of_pairs_whatever_arrives(events, limits):
    matcher = PairMatcher(**limits, x_name='thermal')
    outs, messages, _ = play(matcher, events)
    rgb, thermal = [out.rgb for out in outs], [out.thermal for out in outs]
    # At most once, and each one a message that its topic brought, with a stamp.
    assert len(set(rgb)) == len(rgb)
    if not limits['reuse_x']:
        assert len(set(thermal)) == len(thermal)
    rgb_taken, rgb_jumps = accepted(messages, 'rgb')
    assert set(rgb) <= set(rgb_taken)
    assert set(thermal) <= set(accepted(messages, 'thermal')[0])
    # Both in the order of arrival; stamps strictly increase but where RGB's own time jumps back.
    assert rgb == sorted(rgb)
    assert thermal == sorted(thermal)
    for before, after in pairwise(outs):
        if not any(before.rgb < jump <= after.rgb for jump in rgb_jumps):
            assert before.stamp_ns < after.stamp_ns
    for out in outs:
        first, second = messages[out.rgb], messages[out.thermal]
        skew = second.stamp_ns + limits['x_offset_ns'] - first.stamp_ns
        assert (out.stamp_ns, out.skew_ns) == (first.stamp_ns, skew)
        assert abs(skew) <= limits['max_skew_ns']
        assert max(first.index, second.index) < out.arrived
        assert out.at_ns - first.arrival_ns <= limits['max_wait_ns']
    check_all_counted(matcher, messages, outs)


def check_all_counted(matcher, messages, outs):
    """No message is lost without being counted, by its own topic."""
    for _ in range(2):  # the second time there is nothing left
        matcher.stop()
    lost = {'rgb': 0, 'thermal': 0}
    for reason, count in matcher.drops.items():
        lost[reason.split('_')[0]] += count
    served = {out.rgb for out in outs} | {out.thermal for out in outs}
    for topic, count in lost.items():
        arrived = {message.index for message in messages if message.topic == topic}
        assert len(arrived - served) == count


@settings(max_examples=150)
@given(any_arrivals(), limits, st.booleans(), st.booleans())
def test_no_more_messages_are_kept_than_the_queues_hold(events, limits, rgb_alone, thermal_alone):
    """Whoever refers to them: what is alive is counted, not what the matcher says."""
    matcher = PairMatcher(**limits, x_name='thermal')
    matcher.rgb_alone_after_ns = 100 * MS if rgb_alone else None
    matcher.x_alone_after_ns = 100 * MS if thermal_alone else None
    outs, _, most = play(matcher, events, keep=False)
    assert most <= 2 * limits['queue_size']
    for used in ([out.rgb for out in outs], [out.thermal for out in outs]):
        once = [index for index in used if index is not None]
        if not limits['reuse_x']:
            assert len(set(once)) == len(once)


@st.composite
def orderly_arrivals(draw, max_gap_ms=90):
    """Two streams in order, any gaps, each frame late by up to 80 ms but none overtaken."""
    events = []
    for topic in ('rgb', 'thermal'):
        stamp, arrival = SECOND, 0
        steps = st.tuples(st.integers(1, max_gap_ms), st.integers(0, 80))
        for gap, delay in draw(st.lists(steps, max_size=40)):
            stamp += gap * MS
            arrival = max(arrival, stamp + delay * MS)
            events.append((arrival, topic, stamp))
    return sorted(events)


@settings(max_examples=200)
@given(
    orderly_arrivals(),
    st.integers(0, 60),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
)
def test_promises_of_pairs_where_streams_go_out_alone(events, skew, wait, after, reuse):
    matcher = PairMatcher(skew * MS, wait * MS, reuse_x=reuse, queue_size=100, x_name='thermal')
    matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = after * MS
    outs, messages, _ = play(matcher, events)
    assert all(before.stamp_ns < after.stamp_ns for before, after in pairwise(outs))
    rgb = [out.rgb for out in outs if out.rgb is not None]
    thermal = [out.thermal for out in outs if out.thermal is not None]
    assert len(set(rgb)) == len(rgb)
    if not reuse:
        assert len(set(thermal)) == len(thermal)
    assert thermal == sorted(thermal)
    for out in outs:
        stamps_ns = [messages[i].stamp_ns for i in (out.rgb, out.thermal) if i is not None]
        assert (out.stamp_ns, out.skew_ns) == (stamps_ns[0], stamps_ns[-1] - stamps_ns[0])
        assert abs(out.skew_ns) <= skew * MS
    check_all_counted(matcher, messages, outs)


@settings(max_examples=300)
@given(orderly_arrivals(), st.integers(0, 80), st.integers(0, 150), st.booleans())
def test_no_nearer_partner_is_passed_over(events, skew, wait, reuse):
    """Of the thermal frames that had come when a pair went out, its own is the nearest free one.

    Free: later than those that have served, and not nearer to the next RGB frame.
    """
    matcher = PairMatcher(skew * MS, wait * MS, reuse_x=reuse, queue_size=100, x_name='thermal')
    outs, messages, _ = play(matcher, events)
    served = -1
    for out in outs:
        stamp = out.stamp_ns
        following = [m for m in messages[: out.arrived] if m.topic == 'rgb' and m.stamp_ns > stamp]
        for other in messages[: out.arrived]:
            nearer = abs(other.stamp_ns - stamp) < abs(out.skew_ns)
            if other.topic == 'rgb' or other.stamp_ns <= served or not nearer:
                continue
            assert not reuse
            assert following
            rival = following[0].stamp_ns
            assert abs(rival - other.stamp_ns) < abs(stamp - other.stamp_ns)
        if not reuse:
            served = messages[out.thermal].stamp_ns


@settings(max_examples=200)
@given(orderly_arrivals(), st.integers(0, 80), st.booleans())
def test_no_frame_is_given_up_that_had_a_free_partner_within_reach(events, skew, reuse):
    """With time to wait: an RGB frame without a pair had every frame within reach taken from it."""
    matcher = PairMatcher(skew * MS, 10 * SECOND, reuse_x=reuse, queue_size=100, x_name='thermal')
    outs, messages, _ = play(matcher, events)
    paired = {out.rgb: messages[out.thermal].stamp_ns for out in outs}
    rgb = [m for m in messages if m.topic == 'rgb']
    for position, frame in enumerate(rgb):
        if frame.index in paired:
            continue
        for other in messages:
            if other.topic == 'rgb' or abs(other.stamp_ns - frame.stamp_ns) > skew * MS:
                continue
            assert not reuse
            before = [paired[m.index] for m in rgb[:position] if m.index in paired]
            taken = before and other.stamp_ns <= max(before)
            rival = rgb[position + 1 :][:1]
            outranked = rival and (
                abs(rival[0].stamp_ns - other.stamp_ns) < abs(frame.stamp_ns - other.stamp_ns)
            )
            assert taken or outranked


@st.composite
def slow_thermal(draw):
    """Stamps of two cameras with jitter, of which thermal is three to five times slower."""
    rgb_ms = draw(st.integers(15, 40))
    thermal_ms = rgb_ms * draw(st.integers(3, 5))
    streams = []
    for period_ms, count in ((rgb_ms, 60), (thermal_ms, 16)):
        stamp = SECOND + draw(st.integers(0, 100)) * MS
        intervals_us = st.integers(period_ms * 1000, period_ms * 1100)
        steps = draw(st.lists(intervals_us, min_size=count, max_size=count))
        streams.append([stamp + sum(steps[: i + 1]) * 1000 for i in range(count)])
    return tuple(streams)


def pair_stamps(rgb, thermal, **options):
    """Return the pairs of stamps that come of two streams without delay and with time to wait."""
    events = [(stamp, 'rgb', stamp) for stamp in rgb] + [(stamp, 'x', stamp) for stamp in thermal]
    matcher = PairMatcher(max_wait_ns=SECOND, queue_size=100, **options, x_name='thermal')
    outs, messages, _ = play(matcher, sorted(events))
    return [(messages[out.rgb].stamp_ns, messages[out.thermal].stamp_ns) for out in outs]


def nearest_of(stamps, candidates, skew_ns):
    """By brute force: the distance of each stamp from the nearest candidate, where within reach."""
    distances = {stamp: min(abs(stamp - other) for other in candidates) for stamp in stamps}
    return {stamp: distance for stamp, distance in distances.items() if distance <= skew_ns}


@settings(max_examples=60)
@given(slow_thermal(), st.integers(1, 30))
def test_a_slower_thermal_stream_meets_its_nearest_rgb_frames(streams, skew):
    rgb, thermal = streams
    pairs = pair_stamps(rgb, thermal, max_skew_ns=skew * MS)
    assert {t: abs(t - r) for r, t in pairs} == nearest_of(thermal, rgb, skew * MS)


@settings(max_examples=60)
@given(slow_thermal(), st.integers(1, 100))
def test_reuse_gives_every_rgb_frame_its_nearest_thermal_frame(streams, skew):
    rgb, thermal = streams
    pairs = pair_stamps(rgb, thermal, max_skew_ns=skew * MS, reuse_x=True)
    assert {r: abs(t - r) for r, t in pairs} == nearest_of(rgb, thermal, skew * MS)


@settings(max_examples=60)
@given(slow_thermal(), st.integers(1, 10))
def test_a_faster_thermal_stream_gives_every_rgb_frame_its_nearest(streams, skew):
    thermal, rgb = streams
    pairs = pair_stamps(rgb, thermal, max_skew_ns=skew * MS)
    assert {r: abs(t - r) for r, t in pairs} == nearest_of(rgb, thermal, skew * MS)


@st.composite
def partners(draw):
    """Two cameras of one rate with a phase, jitter of stamps and arrivals, and lost frames.

    Returns the events and the (RGB, thermal) stamps of the frames of which both came.
    """
    phase = draw(st.integers(-5, 5)) * MS
    kinds = st.sampled_from(['both'] * 6 + ['rgb', 'thermal'])
    jitter = st.integers(-1500, 1500)
    late = st.integers(0, 15)
    both, events = [], []
    frames = draw(st.lists(st.tuples(kinds, jitter, jitter, late, late), min_size=1, max_size=50))
    for i, (kind, rgb_us, thermal_us, rgb_late, thermal_late) in enumerate(frames):
        rgb = SECOND + i * INTERVAL + rgb_us * 1000
        thermal = SECOND + i * INTERVAL + phase + thermal_us * 1000
        if kind in ('both', 'rgb'):
            events.append((rgb + rgb_late * MS, 'rgb', rgb))
        if kind in ('both', 'thermal'):
            events.append((thermal + thermal_late * MS, 'thermal', thermal))
        if kind == 'both':
            both.append((rgb, thermal))
    return sorted(events), both


@settings(max_examples=150)
@given(partners(), st.integers(12, 20))
def test_partners_find_each_other_through_jitter_and_drops(arrivals, skew):
    """Exactly the frames that belong together: nothing shifts, nothing is lost beside the lost."""
    events, both = arrivals
    outs, messages, _ = play(PairMatcher(skew * MS, 3 * INTERVAL, x_name='thermal'), events)
    found = [(messages[out.rgb].stamp_ns, messages[out.thermal].stamp_ns) for out in outs]
    assert found == both


offsets = st.one_of(
    st.integers(-400, 400).map(lambda ms: ms * MS),
    st.integers(-90_000, 90_000).map(lambda ms: ms * MS),
    st.just(10**18),
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 20), offsets, offsets), max_size=5),
    offsets,
    st.integers(-2, 2),
    st.booleans(),
    st.booleans(),
)
def test_half_a_second_after_the_last_jump_all_is_as_before(glitches, final, lag, reuse, alone):
    """Each stream's clock jumps forth and back on its own; then both have the same again.

    `lag`: frames by which thermal comes to a jump later than RGB.
    """
    matcher = PairMatcher(15 * MS, 3 * INTERVAL, reuse_x=reuse, x_name='thermal')
    matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = 300 * MS if alone else None
    segments = [(20, 0, 0), *glitches, (40, final, final)]
    clocks = {
        'rgb': [rgb for count, rgb, _ in segments for _ in range(count)],
        'thermal': [thermal for count, _, thermal in segments for _ in range(count)],
    }
    start = 1000 * SECOND
    total = len(clocks['rgb'])
    events = []
    for topic, phase, late in (('rgb', 0, 0), ('thermal', 4 * MS, lag)):
        for i in range(total):
            true = start + i * INTERVAL + phase
            clock = clocks[topic][min(max(0, i - late), total - 1)]
            events.append((true, topic, true + clock))
    outs, messages, _ = play(matcher, sorted(events))
    settled = start + (total - 40) * INTERVAL + SECOND // 2
    expected = [e for e in events if e[0] > settled and e[1] == 'rgb']
    found = [out for out in outs if messages[out.rgb or 0].arrival_ns > settled]
    assert [out.stamp_ns for out in found] == [stamp for _, _, stamp in expected]
    assert all(out.thermal is not None and out.skew_ns == 4 * MS for out in found)
    # Once all intervals that the matcher remembers are regular, a pair leaves with its later frame.
    assert all(out.at_ns == messages[out.thermal].arrival_ns for out in found[-15:])


@given(
    partners(),
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from(['again', 'zero', 'overtaken']))),
)
def test_duplicates_and_stamps_of_zero_change_nothing(arrivals, extras):
    """Put anywhere into a sequence: the same pairs come out at the same times."""
    events, _ = arrivals
    more = []
    for i, (arrival, topic, stamp) in enumerate(events):
        more.append((arrival, topic, stamp))
        for position, kind in extras:
            if position % len(events) == i:
                extra = {'again': stamp, 'zero': 0, 'overtaken': stamp - 40 * MS}[kind]
                more.append((arrival, topic, extra))
    plain, messages, _ = play(PairMatcher(15 * MS, 2 * INTERVAL, x_name='thermal'), events)
    matcher = PairMatcher(15 * MS, 2 * INTERVAL, x_name='thermal')
    mixed, others, _ = play(matcher, more)
    assert [(o.stamp_ns, o.skew_ns, o.at_ns) for o in mixed] == [
        (o.stamp_ns, o.skew_ns, o.at_ns) for o in plain
    ]
    assert len(others) - len(messages) == len(extras)


@pytest.mark.parametrize('topic', ['rgb', 'thermal'])
def test_one_stream_of_zero_stamps_holds_nothing(topic):
    matcher = PairMatcher(15 * MS, SECOND, x_name='thermal')
    outs, _, most = play(matcher, [(i, topic, 0) for i in range(1000)], keep=False)
    assert outs == []
    assert most == 0
