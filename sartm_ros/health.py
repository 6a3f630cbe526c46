"""What the node counts and measures, and what it makes of it once a second.

`Health` needs no ROS; `to_message` makes a `diagnostic_msgs/DiagnosticArray` of its reports.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OK, WARN, ERROR = range(3)  # levels of diagnostic_msgs/DiagnosticStatus

SAMPLES = 1000
"""Latencies and skews remembered: the last half minute at 30 Hz."""

SILENT_S = 2.0
"""A topic that has brought nothing for so long is reported."""

TOPICS = ('rgb', 'thermal')

MODALITIES = ('both', 'rgb', 'thermal')
"""What a result may have been made from."""

STALLS = ('thermal_frozen', 'thermal_flat', 'thermal_gap', 'rgb_gap')

HINTS = {
    'rgb_no_stamp': 'the RGB driver leaves header.stamp empty',
    'thermal_no_stamp': 'the thermal driver leaves header.stamp empty',
    'rgb_no_partner': 'the clocks differ: see sync.thermal_offset and sync.max_skew',
    'rgb_timeout': 'thermal comes too late or its clock differs: see sync.max_wait',
    'rgb_outranked': 'thermal is slower than RGB: see sync.reuse_thermal',
}


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
        self._latency_s: deque[float] = deque(maxlen=SAMPLES)
        self._skew_s: deque[float] = deque(maxlen=SAMPLES)
        self._last_error = ''
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
            self._skew_s.append(abs(skew_ns) * 1e-9)

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
            self._latency_s.append(latency_s)

    def dropped(self, reason: str, count: int = 1, error: str = '') -> None:
        """`count` pairs or messages were dropped; `error` is the text for the diagnostics."""
        with self._lock:
            if count:
                self._dropped[reason] += count
            if error:
                self._last_error = error

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
            return result | {f'dropped.{name}': dropped[name] for name in sorted(dropped)}

    def report(self, topics: Mapping[str, str], matcher_drops: Mapping[str, int]) -> Report:
        """The state since the last report.

        Args:
            topics: the topic names of 'rgb' and 'thermal', for the text.
            matcher_drops: the matcher's own counts, by reason.
        """
        counts = self.counts(matcher_drops)
        silent = [topic for topic in TOPICS if self.silence_s(topic) > SILENT_S]
        with self._lock:
            now_s = time.monotonic()
            new = {name: count - self._reported.get(name, 0) for name, count in counts.items()}
            rate_hz = new['pairs_out'] / max(now_s - self._reported_s, 1e-3)
            self._reported, self._reported_s = counts, now_s
            values = {name: str(count) for name, count in counts.items()}
            values |= {'rate_hz': f'{rate_hz:.1f}'}
            values |= _statistics('latency', self._latency_s) | _statistics('skew', self._skew_s)
            last_error = self._last_error
        stalls = [name for name in STALLS if new.get(name)]
        if silent and not (stalls and new['pairs_out']):
            names = ' and '.join(topics[topic] for topic in silent)
            return Report(
                ERROR, f'no messages on {names}: is the driver running, is the name right?', values
            )
        if stalls:
            return Report(WARN, _what_was_served(stalls, new), values)
        if new.get('dropped.bad_frame') or new.get('dropped.failed'):
            return Report(WARN, f'frames that could not be used: {last_error}', values)
        if not new['pairs_in'] and new['rgb_received']:
            return Report(WARN, _why_no_pairs(new), values)
        return Report(OK, f'{rate_hz:.1f} pairs a second', values)


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


def _statistics(name: str, samples_s: deque[float]) -> dict[str, str]:
    if not samples_s:
        return {}
    median, p99 = np.percentile(samples_s, (50, 99)) * 1e3
    return {
        f'{name}_median_ms': f'{median:.2f}',
        f'{name}_p99_ms': f'{p99:.2f}',
        f'{name}_max_ms': f'{max(samples_s) * 1e3:.2f}',
    }


def to_message(report: Report, name: str, hardware_id: str, stamp: Any) -> Any:
    """The report as a `diagnostic_msgs/DiagnosticArray` of one status called `name`."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

    status = DiagnosticStatus(
        level=bytes([report.level]),
        name=name,
        message=report.message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
