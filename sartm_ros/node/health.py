"""What the node counts and measures, and what it makes of it once a second. No ROS import."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

OK, WARN, ERROR = range(3)  # levels of diagnostic_msgs/DiagnosticStatus

SAMPLES = 1000
"""Latencies and skews remembered: the last half minute at 30 Hz."""

SILENT_S = 2.0
"""A topic that has brought nothing for so long is reported."""

TOPICS = ('rgb', 'thermal')

MODALITIES = ('both', 'rgb', 'thermal')
"""What a result may have been made from."""

STAGES = ('match', 'wait', 'read', 'upload', 'network', 'download', 'publish', 'extras')
"""A result's way. Waiting for the partner; for the inference thread; messages read; images sent
and normalised; the network; labels fetched; labels published. So far it is the latency. `extras` is
the rest that is published before the thread is free for the next pair."""

STALLS = {
    'thermal_frozen': 'the image does not change: a closed shutter, or a driver that hangs?',
    'thermal_flat': 'the image has no contrast: a closed shutter, or a lens cap?',
    'thermal_gap': 'images stay away: a closed shutter, or a loose cable?',
    'rgb_gap': 'images stay away: a loose cable?',
}
"""What a camera does, and what to look at."""

UNREADABLE = {topic: f'{topic}_unreadable' for topic in TOPICS}
"""Drops of messages that are cut off or no images at all."""

FAILURES = ('bad_frame', 'failed', 'out_of_memory', *UNREADABLE.values())
"""Drops whose error is told."""

HINTS = {
    'rgb_no_stamp': 'the RGB driver leaves header.stamp empty',
    'thermal_no_stamp': 'the thermal driver leaves header.stamp empty',
    'rgb_no_partner': 'the clocks differ: see sync.thermal_offset and sync.max_skew',
    'rgb_timeout': 'thermal comes too late or its clock differs: see sync.max_wait',
    'rgb_partner_taken': 'thermal is slower than RGB: see sync.reuse_thermal',
}


_SAMPLED = ('latency', 'skew', *STAGES)


@dataclass(frozen=True)
class Report:
    """A level, one line that says why, and the figures by name."""

    level: int
    message: str
    values: dict[str, str] = field(default_factory=dict)


class Health:
    """Counters of one node; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._last_s = dict.fromkeys(TOPICS, time.monotonic())
        self._pairs_in = 0
        self._pairs_out = 0
        self._served: Counter[str] = Counter()
        self._stalled: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._nan_outputs = 0
        self._samples_s = {name: deque[float](maxlen=SAMPLES) for name in _SAMPLED}
        self._last_error, self._last_error_s = '', 0.0
        self._reported: Mapping[str, int] = Counter()
        self._reported_s = time.monotonic()

    def restart_clocks(self) -> None:
        """Count silence from now on: the topics have just been subscribed to."""
        with self._lock:
            self._last_s = dict.fromkeys(TOPICS, time.monotonic())

    def received(self, topic: str) -> None:
        """A message has come on 'rgb' or 'thermal'."""
        with self._lock:
            self._received[topic] += 1
            self._last_s[topic] = time.monotonic()

    def paired(self, skew_ns: int) -> None:
        """The matcher has given out a pair."""
        with self._lock:
            self._pairs_in += 1
            self._samples_s['skew'].append(abs(skew_ns) * 1e-9)

    def stalled(self, what: str) -> None:
        """A pair met one of `STALLS`."""
        with self._lock:
            self._stalled[what] += 1

    def published(self, latency_s: float, modality: str = 'both') -> None:
        """A pair's labels are out, `latency_s` after its RGB message came in.

        They are made from one of `MODALITIES`.
        """
        with self._lock:
            self._pairs_out += 1
            self._served[modality] += 1
            self._samples_s['latency'].append(latency_s)

    def timed(self, stages_s: Mapping[str, float]) -> None:
        """A result took so many seconds in some of `STAGES`."""
        with self._lock:
            for stage, seconds in stages_s.items():
                self._samples_s[stage].append(seconds)

    def not_a_number(self) -> None:
        """A result has pixels for which the network gave NaN."""
        with self._lock:
            self._nan_outputs += 1

    def dropped(self, reason: str, count: int = 1, error: str = '') -> None:
        """`count` pairs or messages were dropped; `error` is the text for the diagnostics."""
        with self._lock:
            if count:
                self._dropped[reason] += count
            if error:
                self._last_error, self._last_error_s = error, time.monotonic()

    def silence_s(self, topic: str) -> float:
        """Seconds since the last message on 'rgb' or 'thermal', or since the subscription."""
        with self._lock:
            return time.monotonic() - self._last_s[topic]

    def counts(self, matcher_drops: Mapping[str, int]) -> dict[str, int]:
        """Every counter by name: received, pairs, served, stalls and `dropped.<reason>`."""
        with self._lock:
            dropped = self._dropped + Counter(matcher_drops)
            result = {f'{topic}_received': self._received[topic] for topic in TOPICS}
            result |= {'pairs_in': self._pairs_in, 'pairs_out': self._pairs_out}
            result |= {f'served_{name}': self._served[name] for name in MODALITIES}
            result |= {name: self._stalled[name] for name in STALLS if self._stalled[name]}
            if self._nan_outputs:
                result['nan_outputs'] = self._nan_outputs
            return result | {f'dropped.{name}': dropped[name] for name in sorted(dropped)}

    def report(
        self,
        topics: Mapping[str, str],
        matcher_drops: Mapping[str, int],
        why_silent: Callable[[str], str],
    ) -> Report:
        """How a node that listens has done since the last report.

        Args:
            topics: the topic names of 'rgb' and 'thermal', for the text.
            matcher_drops: the matcher's own counts, by reason.
            why_silent: what may be wrong with 'rgb' or 'thermal', and what to do.
        """
        new, values = self._since_last(matcher_drops)
        silent = [topic for topic in TOPICS if self.silence_s(topic) > SILENT_S]
        silence = '; '.join(f'no messages on {topics[t]}, {why_silent(t)}' for t in silent)
        stalls = [name for name in STALLS if new.get(name)]
        if silent and not (stalls and new['pairs_out']):
            return Report(ERROR, silence, values)
        if stalls:
            served = _what_was_served(stalls, new)
            hints = [f'{topics[name.partition("_")[0]]}: {STALLS[name]}' for name in stalls]
            return Report(WARN, '; '.join([served, silence or ' '.join(hints)]), values)
        if any(new.get(f'dropped.{reason}') for reason in FAILURES):
            text = f'frames that could not be used: {values["last_error"]}'
            return Report(WARN, text, values)
        if new.get('nan_outputs'):
            text = f'NaN from the network in {new["nan_outputs"]} results: unknown (255) there'
            return Report(WARN, text, values)
        if not new['pairs_in'] and new['rgb_received']:
            return Report(WARN, _why_no_pairs(new), values)
        return Report(OK, f'{values["rate_hz"]} pairs a second', values)

    def idle(self, message: str, level: int = OK) -> Report:
        """The report of a node that does not listen; `message` says why."""
        return Report(level, message, self._since_last({})[1])

    def _since_last(self, matcher_drops: Mapping[str, int]) -> tuple[Counter[str], dict[str, str]]:
        """Counts since the last report, and all figures by name."""
        counts = self.counts(matcher_drops)
        with self._lock:
            now_s = time.monotonic()
            span_s = max(now_s - self._reported_s, 1e-3)
            new = Counter(
                {name: count - self._reported.get(name, 0) for name, count in counts.items()}
            )
            self._reported, self._reported_s = counts, now_s
            samples_s = {name: np.array(s) for name, s in self._samples_s.items() if s}
            error, error_age_s = self._last_error, now_s - self._last_error_s
        values = {name: str(count) for name, count in counts.items()}
        values |= {f'{topic}_hz': f'{new[f"{topic}_received"] / span_s:.1f}' for topic in TOPICS}
        values['rate_hz'] = f'{new["pairs_out"] / span_s:.1f}'
        in_use = [name for name in MODALITIES if new[f'served_{name}']]
        values['modality'] = ', '.join(in_use) or 'none'
        for name, sampled_s in samples_s.items():
            values |= _statistics(name, sampled_s)
        values['last_error'] = error or 'none'
        if error:
            values['last_error_age_s'] = f'{error_age_s:.1f}'
        return new, values


def _what_was_served(stalls: list[str], new: Mapping[str, int]) -> str:
    both, rgb, thermal = (new[f'served_{name}'] for name in MODALITIES)
    return (
        f'{", ".join(stalls)}: {both} results from both cameras, {rgb} from RGB alone, '
        f'{thermal} from thermal alone'
    )


def _why_no_pairs(new: Mapping[str, int]) -> str:
    hinted = {name: new.get(f'dropped.{name}', 0) for name in HINTS}
    reason = max(hinted, key=lambda name: hinted[name])
    if not hinted[reason]:
        return 'no pairs: the images wait for their partners'
    return f'no pairs: {HINTS[reason]} ({reason})'


def _statistics(name: str, samples_s: np.ndarray) -> dict[str, str]:
    median, p99, most = np.percentile(samples_s, (50, 99, 100)) * 1e3
    return {
        f'{name}_median_ms': f'{median:.2f}',
        f'{name}_p99_ms': f'{p99:.2f}',
        f'{name}_max_ms': f'{most:.2f}',
    }
