"""The comparison of the matching policies: its sequences, its hindsight, its table."""

from __future__ import annotations

import importlib.util
from itertools import combinations

import pytest

pytest.importorskip('hypothesis', reason='needs hypothesis')

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import matching as benchmark
from benchmarks.matching import MS, Message, Output, best_pairs, cases, play, policies

INSTALLED = importlib.util.find_spec('message_filters') is not None
LIMIT = 50 * MS


def least_cost(rgb, thermal):
    """By trying every set of RGB frames with every set of thermal frames, in order."""
    best = LIMIT * len(rgb)
    for count in range(1, min(len(rgb), len(thermal)) + 1):
        for some in combinations(rgb, count):
            for others in combinations(thermal, count):
                skews = [abs(t - r) for r, t in zip(some, others, strict=True)]
                if max(skews) <= LIMIT:
                    best = min(best, sum(skews) + LIMIT * (len(rgb) - count))
    return best


streams = st.lists(st.integers(1, 250), min_size=1, max_size=6, unique=True).map(sorted)


@settings(max_examples=60)
@given(streams, streams)
def test_best_is_the_best(rgb_ms, thermal_ms):
    rgb, thermal = [ms * MS for ms in rgb_ms], [ms * MS for ms in thermal_ms]
    messages = sorted(
        [Message(r, 'rgb', r) for r in rgb] + [Message(t, 'thermal', t) for t in thermal]
    )
    pairs = best_pairs(messages)
    cost = sum(abs(p.skew_ns) for p in pairs) + LIMIT * (len(rgb) - len(pairs))
    assert cost == least_cost(rgb, thermal)
    assert all(p.skew_ns == messages[p.thermal].stamp_ns - messages[p.rgb].stamp_ns for p in pairs)


def test_sequences_are_the_same_each_time_and_in_order_of_arrival():
    first, second = cases(2), cases(2)
    assert first == second
    assert cases(2, seed=1) != first
    for name, messages in first.items():
        arrivals = [m.arrival_ns for m in messages]
        assert arrivals == sorted(arrivals), name
        assert {m.topic for m in messages} == {'rgb', 'thermal'}


def test_nearest_is_the_best_possible_where_nothing_is_lost():
    for name in ('30/30 Hz, 11 ms apart', '30/9 Hz, 11 ms apart', 'jitter', 'every message twice'):
        messages = cases(5)[name]
        ours = play(dict(policies(0))['nearest'], messages, benchmark._bare)
        found = [(o.rgb, o.thermal, o.skew_ns) for o in ours]
        assert found == [(o.rgb, o.thermal, o.skew_ns) for o in best_pairs(messages)], name


def test_what_a_row_says():
    messages = [
        Message(10 * MS, 'rgb', 5 * MS),
        Message(12 * MS, 'thermal', 9 * MS),
        Message(20 * MS, 'rgb', 15 * MS),
        Message(2000 * MS, 'rgb', 5 * MS, 1),
    ]
    outputs = [
        Output(2, 1, -6 * MS, 25 * MS),
        Output(0, 1, 4 * MS, 13 * MS),
        Output(3, 1, 4 * MS, 2001 * MS),
    ]
    row = benchmark.summary(messages, outputs)
    skews, added = '4.7 / 4.0 / 6.0 / 6.0', '2.3 / 1.0 / 5.0 / 5.0'
    # One step backwards (that to the next lap is none), thermal used again twice, one pair stale.
    assert row == ['3', '100.0%', skews, added, '1', '2', '1']


def test_the_table(capsys):
    assert benchmark.main(['--seconds', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5 * len(cases(1))
    assert {line.count('|') for line in lines} == {10}
    missing = [line for line in lines if 'message_filters is not installed' in line]
    assert len(missing) == (0 if INSTALLED else 2 * len(cases(1)))


@pytest.mark.skipif(not INSTALLED, reason='needs ROS 2 (message_filters); it is not on PyPI')
def test_the_policies_of_message_filters_take_part():
    messages = cases(2)['30/30 Hz, equal stamps']
    for name in ('approximate', 'exact'):
        outputs = play(dict(policies(0))[name], messages, benchmark._with_header(messages))
        assert [o.skew_ns for o in outputs] == [0] * 60
