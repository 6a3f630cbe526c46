"""Compares the matching policies on the same messages: `python -m benchmarks.matching`.

Each case is a sequence of messages with an arrival and a stamp, which is played to every policy.
Time is that of the sequence, so the result does not depend on the speed of the computer. The rows
of `message_filters` need that package; `best` is the optimum with knowledge of the whole sequence.
"""

from __future__ import annotations

import argparse
import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import mean
from types import SimpleNamespace
from typing import Any, NamedTuple

from sartm_model.errors import SartmError
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher
from sartm_ros.sync.pair_matcher import Pair, PairMatcher

MS = 1_000_000
SECOND = 1000 * MS
START_NS = 100 * SECOND
LAG_NS = 120 * MS
"""The delay of the thermal stamps in the case of late stamps."""

MAX_SKEW_S, MAX_WAIT_S, QUEUE_SIZE = 0.05, 0.1, 20
"""The node's defaults, for every policy."""

STALE_NS = SECOND
"""Messages that arrive further apart than this do not belong together, whatever their stamps."""


class Message(NamedTuple):
    """One message of a sequence; times in nanoseconds. `lap` counts the jumps of time before it."""

    arrival_ns: int
    topic: str
    stamp_ns: int
    lap: int = 0


class Output(NamedTuple):
    """A pair, as positions in the sequence, and the time of its output."""

    rgb: int
    thermal: int
    skew_ns: int
    at_ns: int


def camera(
    topic: str,
    rate_hz: float,
    seconds: float,
    chance: random.Random,
    *,
    phase_ms: float = 0,
    stamp_jitter_ms: float = 0,
    delay_ms: tuple[float, float] = (5, 5),
    drops: float = 0,
) -> list[Message]:
    """Return a camera's messages.

    Args:
        topic: 'rgb' or 'thermal'.
        rate_hz: frame rate.
        seconds: length of the sequence.
        chance: source of jitter, delays and drops.
        phase_ms: time of the first frame.
        stamp_jitter_ms: greatest error of a stamp.
        delay_ms: least and greatest delay from the exposure to the arrival.
        drops: probability that a message is lost.
    """
    messages = []
    arrival = 0
    for i in range(int(rate_hz * seconds)):
        taken = START_NS + round(i * SECOND / rate_hz + phase_ms * MS)
        jitter_ms, late_ms = chance.uniform(-1, 1) * stamp_jitter_ms, chance.uniform(*delay_ms)
        arrival = max(arrival + 1, taken + round(late_ms * MS))  # in order
        if chance.random() >= drops:
            messages.append(Message(arrival, topic, taken + round(jitter_ms * MS)))
    return messages


def cases(seconds: float = 30, seed: int = 0) -> dict[str, list[Message]]:
    """Return the sequences by name, each in the order of arrival."""

    def both(
        rgb_hz: float = 30,
        thermal_hz: float = 30,
        phase_ms: float = 11,
        length: float = seconds,
        **how: Any,
    ) -> list[Message]:
        chance = random.Random(seed)
        rgb = camera('rgb', rgb_hz, length, chance, **how)
        return sorted(rgb + camera('thermal', thermal_hz, length, chance, phase_ms=phase_ms, **how))

    jitter: dict[str, Any] = {'stamp_jitter_ms': 4, 'delay_ms': (2, 40)}
    third, lap_ns = seconds / 3, round(seconds / 3 * SECOND)

    def looped(**how: Any) -> list[Message]:
        lap_of = both(length=third, **how)
        return sorted(
            m._replace(arrival_ns=m.arrival_ns + lap * lap_ns, lap=lap)
            for lap in range(3)
            for m in lap_of
        )

    half = START_NS + round(seconds / 2 * SECOND)
    jumped = [
        m._replace(stamp_ns=m.stamp_ns + 3600 * SECOND, lap=1) if m.arrival_ns > half else m
        for m in both()
    ]
    lagging = [
        m._replace(stamp_ns=m.stamp_ns + (LAG_NS if m.topic == 'thermal' else 0)) for m in both()
    ]
    twice = [again for m in both() for again in (m, m._replace(arrival_ns=m.arrival_ns + MS))]
    return {
        '30/30 Hz, equal stamps': both(phase_ms=0),
        '30/30 Hz, 11 ms apart': both(),
        '30/9 Hz, 11 ms apart': both(thermal_hz=9),
        'jitter': both(**jitter),
        '30/9 Hz, jitter': both(thermal_hz=9, **jitter),
        '10 % drops': both(drops=0.1),
        'drops and jitter': both(drops=0.1, **jitter),
        'bag loops twice, 10 % drops': looped(drops=0.1),
        'bag loops twice, 30/9 Hz': looped(thermal_hz=9),
        'clock jumps 1 h forward': jumped,
        'thermal stamps 120 ms late': lagging,
        'every message twice': sorted(twice),
    }


def play(matcher: Any, messages: Sequence[Message], wrap: Callable[[int], Any]) -> list[Output]:
    """Play a sequence to a policy and return its pairs; `wrap` makes the message of a position."""
    outputs: list[Output] = []

    def note(pairs: list[Pair], at_ns: int) -> None:
        outputs.extend(
            Output(pair.rgb.position, pair.x.position, pair.skew_ns, at_ns) for pair in pairs
        )

    def poll_until(end_ns: float) -> None:
        while matcher.deadline_ns is not None and matcher.deadline_ns <= end_ns:
            deadline = matcher.deadline_ns
            note(matcher.poll(deadline), deadline)

    for position, message in enumerate(messages):
        poll_until(message.arrival_ns)
        add = matcher.add_rgb if message.topic == 'rgb' else matcher.add_x
        note(add(message.stamp_ns, wrap(position), message.arrival_ns), message.arrival_ns)
    poll_until(float('inf'))
    return outputs


def best_pairs(messages: Sequence[Message], lag_ns: int = 0) -> list[Output]:
    """Return the pairs of least total skew, each message used at most once.

    An RGB frame without a partner counts as much as the greatest allowed skew. Jumps of time are
    known, and `lag_ns` is subtracted from the thermal stamps.
    """
    limit = round(MAX_SKEW_S * SECOND)
    outputs: list[Output] = []
    for lap in sorted({m.lap for m in messages}):
        found: dict[str, dict[int, int]] = {'rgb': {}, 'thermal': {}}
        for position, m in enumerate(messages):
            if m.lap == lap:
                stamp = m.stamp_ns - (lag_ns if m.topic == 'thermal' else 0)
                found[m.topic].setdefault(stamp, position)
        thermal = sorted(found['thermal'])
        # gain[j]: (the greatest gain with the first j thermal frames, the pairs that give it)
        gain: list[tuple[int, Any]] = [(0, None)]
        for stamp in sorted(found['rgb']):
            low = bisect_left(thermal, stamp - limit)
            high = bisect_right(thermal, stamp + limit)
            gain += [gain[-1]] * (high + 1 - len(gain))
            before = gain[low]
            for j in range(low, high):
                skew = thermal[j] - stamp
                paired = (before[0] + limit - abs(skew) + 1, (stamp, thermal[j], before[1]))
                before = gain[j + 1]
                gain[j + 1] = max(gain[j + 1], gain[j], paired, key=lambda option: option[0])
        chain = gain[-1][1]
        one_lap = []
        while chain:
            rgb_ns, thermal_ns, chain = chain
            rgb, other = found['rgb'][rgb_ns], found['thermal'][thermal_ns]
            at_ns = max(messages[rgb].arrival_ns, messages[other].arrival_ns)
            one_lap.append(Output(rgb, other, thermal_ns - rgb_ns, at_ns))
        outputs += reversed(one_lap)
    return outputs


def policies(lag_ns: int) -> Iterator[tuple[str, Any]]:
    """Yield (name, matcher), with None for a matcher that is not installed."""
    for name, reuse in (('nearest', False), ('nearest, reuse', True)):
        yield (
            name,
            PairMatcher(
                round(MAX_SKEW_S * SECOND),
                round(MAX_WAIT_S * SECOND),
                x_offset_ns=-lag_ns,
                reuse_x=reuse,
                queue_size=QUEUE_SIZE,
                x_name='thermal',
            ),
        )
    for name in ('approximate', 'exact'):
        try:
            yield name, MessageFilterMatcher(name, MAX_SKEW_S, QUEUE_SIZE, 'thermal')
        except SartmError:
            yield name, None


def summary(messages: Sequence[Message], outputs: Sequence[Output]) -> list[str]:
    """Return the cells of a row; see the header in `main`."""
    frames = [(m.topic, m.lap, m.stamp_ns) for m in messages]
    rgb = len({frame for frame in frames if frame[0] == 'rgb'})
    used = [frames[o.rgb] for o in outputs]
    partners = [frames[o.thermal] for o in outputs]
    skews = sorted(abs(o.skew_ns) / MS for o in outputs)
    arrivals = [(messages[o.rgb].arrival_ns, messages[o.thermal].arrival_ns) for o in outputs]
    added = sorted((o.at_ns - max(a)) / MS for o, a in zip(outputs, arrivals, strict=True))
    backwards = sum(
        messages[b.rgb].stamp_ns <= messages[a.rgb].stamp_ns
        and messages[b.rgb].lap == messages[a.rgb].lap
        for a, b in pairwise(outputs)
    )
    again = len(used) - len(set(used)) + len(partners) - len(set(partners))
    stale = sum(abs(first - second) > STALE_NS for first, second in arrivals)
    cells = [f'{len(outputs)}', f'{len(set(used)) / rgb:.1%}']
    if not outputs:
        return [*cells, '-', '-', '0', '0', '0']
    cells += [_spread(skews), _spread(added)]
    return [*cells, f'{backwards}', f'{again}', f'{stale}']


def _spread(ordered: Sequence[float]) -> str:
    """Return mean / median / 99th percentile / maximum."""
    values = [mean(ordered), *(ordered[round(q * (len(ordered) - 1))] for q in (0.5, 0.99, 1))]
    return ' / '.join(f'{value:.1f}' for value in values)


def rows(seconds: float, seed: int) -> Iterator[list[str]]:
    """Yield the rows of the table: case, policy, and the cells of `summary`."""
    for case, messages in cases(seconds, seed).items():
        lag_ns = LAG_NS if case.startswith('thermal stamps') else 0
        for policy, matcher in policies(lag_ns):
            if matcher is None:
                yield [case, policy, 'message_filters is not installed', *[''] * 6]
                continue
            wrap = _with_header(messages) if 'nearest' not in policy else _bare
            outputs = play(matcher, messages, wrap)
            yield [case, policy, *summary(messages, outputs)]
        yield [case, 'best', *summary(messages, best_pairs(messages, lag_ns))]


def _bare(position: int) -> Any:
    return SimpleNamespace(position=position)


def _with_header(messages: Sequence[Message]) -> Callable[[int], Any]:
    from std_msgs.msg import Header

    def wrap(position: int) -> Any:
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(messages[position].stamp_ns, SECOND)
        return SimpleNamespace(position=position, header=header)

    return wrap


def main(args: Sequence[str] | None = None) -> int:
    """Print the table as Markdown; return the exit status."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.matching')
    parser.add_argument('--seconds', type=float, default=30.0, help='length of each case')
    parser.add_argument('--seed', type=int, default=0, help='of the jitter and the drops')
    options = parser.parse_args(args)
    print(
        '| Case | Policy | Pairs | RGB served | Skew mean / p50 / p99 / max, ms '
        '| Added latency mean / p50 / p99 / max, ms '
        '| Backwards | Used again | Stale |'
    )
    print('|---|---|' + '---:|' * 7)
    for row in rows(options.seconds, options.seed):
        print('| ' + ' | '.join(row) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
