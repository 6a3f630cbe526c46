"""Counts and measures what the node does, and judges it once a second. No ROS import."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sartm_ros.node.input_timing import CAMERAS, InputTiming
from sartm_ros.node.stall_detection import DESCRIPTIONS, SELECTIONS

OK, WARN, ERROR = range(3)  # the levels of diagnostic_msgs/DiagnosticStatus

SAMPLES = 1000
"""Number of newest samples that the statistics are of: half a minute at 30 Hz."""

SILENT_S = 2.0
"""A topic without a message for this long is reported."""

FAILURES_FOR_ERROR = 3
"""Number of failures in a row, without a result in between, from which on the level is ERROR."""

STAGES = ('match', 'wait', 'read', 'upload', 'network', 'download', 'publish', 'extras')
"""The stages of a result, in order. `match`: the RGB image waits for its partner; `wait`: the pair
waits for the inference thread; `read`: the messages are converted to arrays; `upload`: the images
are copied to the device and normalised; `network`; `download`: the labels are copied back;
`publish`: the labels are published. Their sum is the latency. `extras`: the other outputs are
published, after which the thread is free for the next pair."""

STALLS = {
    'thermal_frozen': 'the image does not change: a closed shutter, or a driver that hangs?',
    'thermal_flat': 'the image has no contrast: a closed shutter, or a lens cap?',
    'thermal_gap': 'no images arrive: a closed shutter, or a loose cable?',
    'thermal_unreadable': 'the messages cannot be read; the last error follows.',
    'rgb_gap': 'no images arrive: a loose cable?',
}
"""Each kind of stall, and what may have caused it."""

UNREADABLE = {camera: f'{camera}_unreadable' for camera in CAMERAS}
"""The drop reason of messages that are truncated or not images."""

MOSTLY_INVALID = 0.25
"""Share of the pixels of thermal images that see nothing from which the diagnostics warn."""

FAILURES = ('bad_frame', 'failed', 'out_of_memory', *UNREADABLE.values())
"""Drop reasons that come with an error text."""

NO_STAMPS = {
    f'{camera}_no_stamp': f'the {name} driver leaves header.stamp empty: set sync.stamp to arrival'
    for camera, name in zip(CAMERAS, ('RGB', 'thermal'), strict=True)
}
"""The drop reasons of messages without a stamp, and what to do."""

_SAMPLED = ('latency', 'skew', *STAGES)


@dataclass(frozen=True)
class Report:
    """The judgement of a node.

    Attributes:
        level: OK, WARN or ERROR.
        message: one line that explains it.
        values: the counters and figures by name.
        problem: the name of a problem that is to be logged if it lasts, or ''.
    """

    level: int
    message: str
    values: dict[str, str] = field(default_factory=dict)
    problem: str = ''


class Health:
    """The counters and measurements of one node. It may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._last_s = dict.fromkeys(CAMERAS, time.monotonic())
        self._pairs_in = 0
        self._pairs_matched = 0
        self._pairs_out = 0
        self._served: Counter[str] = Counter()
        self._stalled: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failures_in_row = 0
        self._nan_outputs = 0
        self._invalid_share = 0.0
        self._samples_s = {name: deque[float](maxlen=SAMPLES) for name in _SAMPLED}
        self._last_error, self._last_error_s = '', 0.0
        self._reported: Mapping[str, int] = Counter()
        self._reported_s = time.monotonic()

    def restart_clocks(self) -> None:
        """Measure the cameras' silence from now on, because the node has just subscribed."""
        with self._lock:
            self._last_s = dict.fromkeys(CAMERAS, time.monotonic())

    def received(self, camera: str) -> None:
        """Count a message of 'rgb' or 'thermal'."""
        with self._lock:
            self._received[camera] += 1
            self._last_s[camera] = time.monotonic()

    def record_pair(self, skew_ns: int | None) -> None:
        """Count a pair of the matcher, or with None an image that is output alone in a gap."""
        with self._lock:
            self._pairs_in += 1
            if skew_ns is not None:
                self._pairs_matched += 1
                self._samples_s['skew'].append(abs(skew_ns) * 1e-9)

    def stalled(self, kind: str) -> None:
        """Count a pair during one of the `STALLS`."""
        with self._lock:
            self._stalled[kind] += 1

    def published(self, latency_s: float, modality: str = 'both') -> None:
        """Count a result.

        Args:
            latency_s: from the arrival of the RGB message until the labels were published.
            modality: what the labels were computed from, one of `SELECTIONS`.
        """
        with self._lock:
            self._pairs_out += 1
            self._failures_in_row = 0
            self._served[modality] += 1
            self._samples_s['latency'].append(latency_s)

    def record_stages(self, stages_s: Mapping[str, float]) -> None:
        """Record the seconds that a result took in some of the `STAGES`."""
        with self._lock:
            for stage, seconds in stages_s.items():
                self._samples_s[stage].append(seconds)

    def record_invalid(self, share: float) -> None:
        """Record the share of the pixels of a thermal image that see nothing."""
        with self._lock:
            self._invalid_share = share

    def record_nan(self) -> None:
        """Count a result in which the network gave NaN for some pixels."""
        with self._lock:
            self._nan_outputs += 1

    def dropped(self, reason: str, count: int = 1, error: str = '') -> None:
        """Count dropped pairs or messages; `error` is the text for the diagnostics."""
        with self._lock:
            if count:
                self._dropped[reason] += count
            if reason in FAILURES:
                self._failures_in_row += count
        if error:
            self.record_error(error)

    def record_error(self, error: str) -> None:
        """Set the text of the last error, of a message without which a result was made."""
        with self._lock:
            self._last_error, self._last_error_s = error, time.monotonic()

    def silence_s(self, camera: str) -> float:
        """Return the seconds since the last message of a camera, or since the subscription."""
        with self._lock:
            return time.monotonic() - self._last_s[camera]

    def counts(self, matcher_drops: Mapping[str, int]) -> dict[str, int]:
        """Return every counter by name: received, pairs, served, stalls, `dropped.<reason>`."""
        with self._lock:
            dropped = self._dropped + Counter(matcher_drops)
            result = {f'{camera}_received': self._received[camera] for camera in CAMERAS}
            result |= {
                'pairs_in': self._pairs_in,
                'pairs_matched': self._pairs_matched,
                'pairs_out': self._pairs_out,
            }
            result |= {f'served_{name}': self._served[name] for name in SELECTIONS}
            result |= {name: self._stalled[name] for name in STALLS if self._stalled[name]}
            if self._nan_outputs:
                result['nan_outputs'] = self._nan_outputs
            return result | {f'dropped.{name}': dropped[name] for name in sorted(dropped)}

    def report(
        self,
        topics: Mapping[str, str],
        matcher_drops: Mapping[str, int],
        explain_silence: Callable[[str], str],
        timing: InputTiming,
    ) -> Report:
        """Judge an active node by what has happened since the last report.

        Args:
            topics: the topic names of 'rgb' and 'thermal', or of the only camera.
            matcher_drops: the matcher's own counts, by reason.
            explain_silence: returns why 'rgb' or 'thermal' may be silent, and what to do.
            timing: of the messages of both topics.
        """
        new, values = self._since_last(matcher_drops)
        values |= timing.values()

        def report(level: int, message: str, problem: str = '') -> Report:
            return Report(level, message, values, problem)

        silent = [camera for camera in topics if self.silence_s(camera) > SILENT_S]
        silence = '; '.join(f'no messages on {topics[c]}, {explain_silence(c)}' for c in silent)
        stalls = [name for name in STALLS if new.get(name)]
        failed = any(new.get(f'dropped.{reason}') for reason in FAILURES)
        served = _describe_served(stalls, new)
        if silent and not (stalls and new['pairs_out']):
            return report(ERROR, silence, f'silent {" ".join(silent)}')
        if failed and self._failures_in_row >= FAILURES_FOR_ERROR:
            text = f'no results, the last {self._failures_in_row} attempts failed'
            return report(ERROR, f'{text}: {values["last_error"]}', 'failing')
        both_arrive = new['rgb_received'] and new['thermal_received']
        unpaired = new['rgb_received'] and not stalls
        is_pair = len(topics) > 1
        if is_pair and not (new['pairs_matched'] or failed) and (both_arrive or unpaired):
            text = _explain_no_pairs(new, timing) if both_arrive else ''
            text = f'no pairs: {text or "the images wait for their partners"}'
            return report(WARN, f'{text}; {served}' if stalls else text, 'no pairs')
        if stalls:
            hints = [f'{topics[name.partition("_")[0]]}: {STALLS[name]}' for name in stalls]
            if new['thermal_unreadable']:
                hints.append(values['last_error'])
            text = '; '.join([served, silence or ' '.join(hints)])
            return report(WARN, text, f'silent {" ".join(silent)}' if silent else '')
        if failed:
            return report(WARN, f'frames that could not be used: {values["last_error"]}')
        if new.get('nan_outputs'):
            text = f'NaN from the network in {new["nan_outputs"]} results: unknown (255) there'
            return report(WARN, text)
        if self._invalid_share >= MOSTLY_INVALID:
            return report(WARN, describe_invalid(self._invalid_share))
        losses = timing.describe_losses(topics)
        if losses:
            return report(WARN, losses, 'losses')
        names = {'rgb': 'RGB', 'thermal': 'thermal'}
        rates = ', '.join(f'{names[camera]} {values[f"{camera}_hz"]} Hz' for camera in topics)
        unit = 'pairs' if is_pair else 'images'
        return report(OK, f'{values["rate_hz"]} {unit} a second ({rates})')

    def idle(self, message: str, level: int = OK) -> Report:
        """Return the report of a node that is not subscribed; `message` says why."""
        return Report(level, message, self._since_last({})[1])

    def _since_last(self, matcher_drops: Mapping[str, int]) -> tuple[Counter[str], dict[str, str]]:
        """Return the counts since the last report, and all values by name."""
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
            invalid_percent = 100 * self._invalid_share
        values = {name: str(count) for name, count in counts.items()}
        values |= {
            f'{camera}_hz': f'{new[f"{camera}_received"] / span_s:.1f}' for camera in CAMERAS
        }
        values['pairs_hz'] = f'{new["pairs_matched"] / span_s:.1f}'
        values['rate_hz'] = f'{new["pairs_out"] / span_s:.1f}'
        in_use = [name for name in SELECTIONS if new[f'served_{name}']]
        values['modality'] = ', '.join(in_use) or 'none'
        for name, sampled_s in samples_s.items():
            values |= _statistics(name, sampled_s)
        values['thermal_invalid_percent'] = f'{invalid_percent:.1f}'
        values['last_error'] = error or 'none'
        if error:
            values['last_error_age_s'] = f'{error_age_s:.1f}'
        return new, values


def describe_invalid(share: float) -> str:
    """Return the text of a warning that much of the thermal image sees nothing."""
    return (
        f'{share:.0%} of the thermal image see nothing: an even border, fill, or counts in '
        'thermal.invalid; the network is given the mean there'
    )


def _describe_served(stalls: list[str], new: Mapping[str, int]) -> str:
    parts = [f'{new[f"served_{name}"]} results from {DESCRIPTIONS[name]}' for name in SELECTIONS]
    return f'{", ".join(stalls)}: {", ".join(parts)}'


def _explain_no_pairs(new: Mapping[str, int], timing: InputTiming) -> str:
    for reason, text in NO_STAMPS.items():
        if new.get(f'dropped.{reason}'):
            return f'{text} ({reason})'
    return timing.explain_no_pairs()


def _statistics(name: str, samples_s: np.ndarray) -> dict[str, str]:
    median, p99, most = np.percentile(samples_s, (50, 99, 100)) * 1e3
    return {
        f'{name}_median_ms': f'{median:.2f}',
        f'{name}_p99_ms': f'{p99:.2f}',
        f'{name}_max_ms': f'{most:.2f}',
    }
