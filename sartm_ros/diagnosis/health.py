"""Counts and measures what the node does; `judgement` judges it. No ROS import."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sartm_model.modalities import MODALITIES
from sartm_ros.settings.cameras import selections
from sartm_ros.sync.stall_detection import FAULTS

SAMPLES = 1000
"""Number of newest samples that the statistics are of: half a minute at 30 Hz."""

STAGES = ('match', 'wait', 'read', 'preprocess', 'network', 'postprocess', 'publish', 'extras')
"""The stages of a result, in order. `match`: the RGB image waits for its partner; `wait`: the pair
waits for the inference thread; `read`: the messages are converted to arrays; `preprocess`,
`network` and `postprocess`: see `Prediction.stages_s`; `publish`: the labels are published. Their
sum is the latency. `extras`: the other outputs are published, after which the thread is free for
the next pair."""

FAILURES = ('bad_frame', 'failed', 'out_of_memory')
"""Drop reasons of pairs that come with an error text."""

_SAMPLED = ('latency', 'skew', *STAGES)


@dataclass(frozen=True)
class Recent:
    """What has happened since the last report.

    Attributes:
        new: the counters' increases, by name.
        values: all counters and figures as text, by name.
        active_s: seconds since the node subscribed, or was enabled again.
        silence_s: seconds since the last message of each camera, at most `active_s`.
        since_pair_s: seconds since the matcher last gave out a pair, or an image alone, at most
            `active_s`.
        since_match_s: seconds since it last gave out a pair, at most `active_s`.
        last_stalls: the `stall_counters` of the pair that was begun last; it may have begun before
            the last report.
        last_modality: what the last result was computed from; '' if the pair that ended last gave
            none.
        failures_in_row: failures since the last result.
        invalid_share: share of the pixels of the last thermal image that see nothing; 0 of images
            of another modality.
        range_warning: why the network sees no contrast in that image, or ''.
    """

    new: Counter[str]
    values: dict[str, str]
    active_s: float
    silence_s: Mapping[str, float]
    since_pair_s: float
    since_match_s: float
    last_stalls: tuple[str, ...]
    last_modality: str
    failures_in_row: int
    invalid_share: float
    range_warning: str


def stall_counters(x_modality: str) -> tuple[str, ...]:
    """Return the counters of pairs during a stall, by camera and state."""
    return (*(f'{x_modality}_{fault}' for fault in FAULTS), 'rgb_gap')


def unreadable_reason(camera: str) -> str:
    """Return the drop reason of a camera's messages that are truncated or not images."""
    return f'{camera}_unreadable'


def failure_reasons(x_modality: str) -> tuple[str, ...]:
    """Return the drop reasons that come with an error text."""
    return (*FAILURES, unreadable_reason('rgb'), unreadable_reason(x_modality))


class Health:
    """The counters and measurements of one node. It may be used from any thread.

    Args:
        x_modality: of the second camera, which is called by it.
    """

    def __init__(self, x_modality: str) -> None:
        self._x_modality = x_modality
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._active_from_s = time.monotonic()
        self._last_s = dict.fromkeys(('rgb', x_modality), self._active_from_s)
        self._last_pair_s = self._last_match_s = self._active_from_s
        self._last_stalls: tuple[str, ...] = ()
        self._last_modality = ''
        self._pairs_in = 0
        self._pairs_matched = 0
        self._pairs_out = 0
        self._served: Counter[str] = Counter()
        self._stalled: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failures_in_row = 0
        self._nan_outputs = 0
        self._missing_outputs = 0
        self._invalid_share, self._range_warning = 0.0, ''
        self._samples_s = {name: deque[float](maxlen=SAMPLES) for name in _SAMPLED}
        self._last_error, self._last_error_s = '', 0.0
        self._reported: Mapping[str, int] = Counter()
        self._reported_s = time.monotonic()

    def restart_clocks(self) -> None:
        """Measure silence and failures from now on, because the node has just subscribed."""
        with self._lock:
            self._failures_in_row = 0
            self._active_from_s = time.monotonic()
            self._last_s = dict.fromkeys(self._last_s, self._active_from_s)
            self._last_pair_s = self._last_match_s = self._active_from_s
            self._last_stalls, self._last_modality = (), ''

    def record_received(self, camera: str) -> None:
        """Count a message of a camera."""
        with self._lock:
            self._received[camera] += 1
            self._last_s[camera] = time.monotonic()

    def record_pair(self, skew_ns: int | None) -> None:
        """Count a pair of the matcher, or with None an image that is output alone in a gap."""
        with self._lock:
            self._pairs_in += 1
            self._last_pair_s = time.monotonic()
            if skew_ns is not None:
                self._last_match_s = self._last_pair_s
                self._pairs_matched += 1
                self._samples_s['skew'].append(abs(skew_ns) * 1e-9)

    def record_stalls(self, *kinds: str) -> None:
        """Count a pair that is begun during these of the `stall_counters`, or during none."""
        with self._lock:
            self._last_stalls = kinds
            self._stalled.update(kinds)

    def record_result(self, latency_s: float, modality: str = 'both') -> None:
        """Count a result.

        Args:
            latency_s: from the arrival of the RGB message until the labels were published.
            modality: what the labels were computed from, one of `cameras.selections`.
        """
        with self._lock:
            self._pairs_out += 1
            self._failures_in_row = 0
            self._last_modality = modality
            self._served[modality] += 1
            self._samples_s['latency'].append(latency_s)

    def record_stages(self, stages_s: Mapping[str, float]) -> None:
        """Record the seconds that a result took in some of the `STAGES`."""
        with self._lock:
            for stage, seconds in stages_s.items():
                self._samples_s[stage].append(seconds)

    def record_thermal(self, invalid_share: float, range_warning: str) -> None:
        """Record the `invalid_share` and the `range_warning` of `UsableImages` of a pair."""
        with self._lock:
            self._invalid_share, self._range_warning = invalid_share, range_warning

    def record_nan(self) -> None:
        """Count a result in which the network gave NaN for some pixels."""
        with self._lock:
            self._nan_outputs += 1

    def record_missing_outputs(self, error: str) -> None:
        """Count a result without some of what was asked for besides its labels."""
        with self._lock:
            self._missing_outputs += 1
        self.record_error(error)

    def record_dropped(self, reason: str, count: int = 1, error: str = '') -> None:
        """Count dropped pairs or messages; `error` is the text for the diagnostics."""
        with self._lock:
            if count:
                self._dropped[reason] += count
            if reason in failure_reasons(self._x_modality):
                self._failures_in_row += count
            if reason in FAILURES or reason.startswith('stall_'):
                self._last_modality = ''
        if error:
            self.record_error(error)

    def record_error(self, error: str) -> None:
        """Set the text of the last error, of a message without which a result was made."""
        with self._lock:
            self._last_error, self._last_error_s = error, time.monotonic()

    def counts(self, matcher_drops: Mapping[str, int]) -> dict[str, int]:
        """Return every counter by name: received, pairs, served, stalls, `dropped.<reason>`."""
        with self._lock:
            dropped = self._dropped + Counter(matcher_drops)
            result = {f'{camera}_received': self._received[camera] for camera in self._last_s}
            result |= {
                'pairs_in': self._pairs_in,
                'pairs_matched': self._pairs_matched,
                'pairs_out': self._pairs_out,
            }
            result |= {
                f'served_{name}': self._served[name] for name in selections(self._x_modality)
            }
            result |= {
                name: self._stalled[name]
                for name in stall_counters(self._x_modality)
                if self._stalled[name]
            }
            if self._nan_outputs:
                result['nan_outputs'] = self._nan_outputs
            if self._missing_outputs:
                result['missing_outputs'] = self._missing_outputs
            return result | {f'dropped.{name}': dropped[name] for name in sorted(dropped)}

    def recent(self, matcher_drops: Mapping[str, int]) -> Recent:
        """Return what has happened since the last call.

        Args:
            matcher_drops: the matcher's own counts, by reason.
        """
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
            recent = Recent(
                new=new,
                values={},  # which are computed without the lock
                active_s=now_s - self._active_from_s,
                silence_s={camera: now_s - last_s for camera, last_s in self._last_s.items()},
                since_pair_s=now_s - self._last_pair_s,
                since_match_s=now_s - self._last_match_s,
                last_stalls=self._last_stalls,
                last_modality=self._last_modality,
                failures_in_row=self._failures_in_row,
                invalid_share=self._invalid_share,
                range_warning=self._range_warning,
            )
        values = {name: str(count) for name, count in counts.items()}
        for camera in recent.silence_s:
            values[f'{camera}_hz'] = f'{new[f"{camera}_received"] / span_s:.1f}'
        values['pairs_hz'] = f'{new["pairs_matched"] / span_s:.1f}'
        values['rate_hz'] = f'{new["pairs_out"] / span_s:.1f}'
        in_use = [name for name in selections(self._x_modality) if new[f'served_{name}']]
        values['modality'] = ', '.join(in_use) or 'none'
        for name, sampled_s in samples_s.items():
            values |= _statistics(name, sampled_s)
        if MODALITIES[self._x_modality].has_range:
            values[f'{self._x_modality}_invalid_percent'] = f'{100 * recent.invalid_share:.1f}'
        values['last_error'] = error or 'none'
        if error:
            values['last_error_age_s'] = f'{error_age_s:.1f}'
        return replace(recent, values=values)


def _statistics(name: str, samples_s: np.ndarray) -> dict[str, str]:
    median, p99, most = np.percentile(samples_s, (50, 99, 100)) * 1e3
    return {
        f'{name}_median_ms': f'{median:.2f}',
        f'{name}_p99_ms': f'{p99:.2f}',
        f'{name}_max_ms': f'{most:.2f}',
    }
