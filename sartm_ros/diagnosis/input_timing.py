"""What the stamps and arrivals of both topics tell: rates, lost images, how the clocks differ.

No ROS import. A camera stamps its images at regular intervals. Where images are lost between the
camera and the node, the stamps of those that arrive have gaps of whole intervals.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping

import numpy as np

from sartm_model.modalities import MODALITIES
from sartm_ros.settings.cameras import camera_names
from sartm_ros.settings.fastdds import FAST_DDS, MIDDLEWARE_VARIABLE, PROFILE_VARIABLE
from sartm_ros.settings.parameters import FIELDS, Parameters, seconds_to_ns
from sartm_ros.sync.pair_matcher import REORDER_NS

WINDOW = 33
"""Number of newest images of each topic that the figures are computed from."""

MIN_INTERVALS = 16
"""Number of intervals from which on a rate is known."""

SMALL_QUANTILE = 0.05
"""The quantile of the intervals that is taken for a single interval of the camera: the second
smallest of 32. With four fifths of the images lost at random, two of 32 are single with a
probability of 99 %."""

LIMITS = (1.5, 2.5, 4.5, 20.0)
"""The gaps, in intervals, below which they are used to compute the interval, in turn: a longer one
is counted correctly only when the interval is known better. A gap beyond the last is a pause."""

MAX_DEVIATION = 0.25
"""Greatest distance of a gap from a whole number of intervals, as a fraction of one interval."""

MIN_REGULAR = 0.85
"""Least share of the gaps that must be whole numbers of intervals, or the rate is unknown."""

LOST_SHARE = 1 / 3
"""The share of lost images from which on there is a warning. Stamps with jitter and single images
lost by a busy machine stay below it."""


GREATEST_OFFSET_S = FIELDS['sync.thermal_offset'].metadata['between'][1]
GREATEST_WAIT_S = FIELDS['sync.max_wait'].metadata['between'][1]


class StreamTiming:
    """The stamps and arrivals of the newest images of one topic. Not thread-safe."""

    def __init__(self) -> None:
        self._arrivals_ns: deque[int] = deque(maxlen=WINDOW)
        self._stamped_ns: deque[tuple[int, int]] = deque(maxlen=WINDOW)

    def add(self, stamp_ns: int, arrival_ns: int) -> None:
        """Take the arrival of an image, and its stamp if it has one that is not late."""
        self._arrivals_ns.append(arrival_ns)
        if stamp_ns <= 0:
            return
        if self._stamped_ns and stamp_ns <= self._stamped_ns[-1][0]:
            if self._stamped_ns[-1][0] - stamp_ns <= REORDER_NS:
                return
            self._stamped_ns.clear()
        self._stamped_ns.append((stamp_ns, arrival_ns))

    @property
    def arrivals_ns(self) -> np.ndarray:
        """The monotonic times of the arrivals, with stamps or without, int64 `[n]`."""
        return np.array(self._arrivals_ns, np.int64)

    @property
    def stamped_ns(self) -> np.ndarray:
        """The stamps, increasing, and the arrivals of the images that have them, int64 `[2, n]`."""
        return np.array(self._stamped_ns, np.int64).reshape(-1, 2).T

    def interval_s(self) -> float:
        """Return the usual time between the images as they arrive, in seconds; 0 if unknown."""
        intervals_ns = np.diff(self.arrivals_ns)
        return float(np.median(intervals_ns)) * 1e-9 if len(intervals_ns) else 0.0

    def camera_interval_s(self) -> float:
        """Return the time between the camera's images by its rate, or as they arrive; 0 if unknown.

        Where images are lost it is shorter than `interval_s`.
        """
        rate = self.rate()
        return self.interval_s() if rate is None else 1 / rate[0]

    def rate(self) -> tuple[float, float] | None:
        """Return the camera's rate in Hz and the share of its images that were lost.

        The result is None while the rate is unknown, because there are too few images or because
        their stamps have no regular interval.
        """
        intervals_ns = np.diff(self.stamped_ns[0])
        if len(intervals_ns) < MIN_INTERVALS:
            return None
        interval_ns = np.quantile(intervals_ns, SMALL_QUANTILE, method='lower')
        for limit in LIMITS:
            used_ns = intervals_ns[intervals_ns < limit * interval_ns]
            counts = np.maximum((used_ns / interval_ns).round(), 1)
            interval_ns = used_ns.sum() / counts.sum()
        # Those from which the interval was computed, with the whole numbers they were counted as.
        gaps = used_ns / interval_ns
        regular = np.count_nonzero(np.abs(gaps - counts) <= MAX_DEVIATION)
        if regular < MIN_REGULAR * len(intervals_ns):
            return None
        return float(1e9 / interval_ns), float(1 - len(gaps) / counts.sum())


class InputTiming:
    """The timing of both topics. Not thread-safe.

    Args:
        parameters: the node's parameters.

    Attributes:
        parameters: may be replaced at any time, but for `x_modality`.
        streams: a `StreamTiming` for each camera, RGB first.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.streams = {camera: StreamTiming() for camera in camera_names(parameters)}

    def advise(self, parameter: str) -> str:
        """Return 'set PARAMETER', of one that only `sync.policy` nearest supports.

        With another policy the text says first that `sync.policy` is to be set to nearest.
        """
        if self.parameters.sync_policy == 'nearest':
            return f'set {parameter}'
        return f'set sync.policy to nearest and {parameter}'

    def add(self, camera: str, stamp_ns: int, arrival_ns: int) -> None:
        """Take the stamp of an image's header and the monotonic time of its arrival."""
        self.streams[camera].add(stamp_ns, arrival_ns)

    def offset_s(self) -> float | None:
        """Return by how much the stamps of X are ahead of RGB's for images that arrive together.

        `sync.thermal_offset` is not included. The result is None while a topic has no stamps.

        It is the median over the images of X of the difference of the stamps minus that of the
        arrivals, to the RGB image that arrived nearest: neighbours differ by the same also where a
        bag is played slowly.
        """
        (rgb_ns, rgb_arrivals_ns), (x_ns, x_arrivals_ns) = (
            stream.stamped_ns for stream in self.streams.values()
        )
        if not (len(rgb_ns) and len(x_ns)):
            return None
        nearest = np.abs(x_arrivals_ns[:, None] - rgb_arrivals_ns).argmin(axis=1)
        ahead_ns = x_ns - rgb_ns[nearest]
        ahead_ns -= x_arrivals_ns - rgb_arrivals_ns[nearest]
        # Of the images of X before the first known RGB image, only the last one is of use.
        first = np.searchsorted(x_arrivals_ns, rgb_arrivals_ns[0])
        return float(np.median(ahead_ns[min(first, len(x_ns) - 1) :])) * 1e-9

    def values(self) -> dict[str, str]:
        """Return the figures of the diagnostics by name."""
        values = {}
        rates_hz = []
        for camera, stream in self.streams.items():
            rate = stream.rate()
            if rate is not None:
                rates_hz.append(rate[0])
            values[f'{camera}_expected_hz'] = 'unknown' if rate is None else f'{rate[0]:.1f}'
            values[f'{camera}_lost'] = 'unknown' if rate is None else f'{rate[1]:.0%}'
        pairs_hz = 'unknown'
        if len(rates_hz) == len(self.streams):
            pairs_hz = f'{rates_hz[0] if self.parameters.sync_reuse_thermal else min(rates_hz):.1f}'
        offset_s = self.offset_s()
        # Adding zero turns -0.0 into 0.0.
        offset = 'unknown' if offset_s is None else f'{round(offset_s, 3) + 0.0:.3f}'
        ahead = f'{self.parameters.x_modality}_stamps_ahead_s'
        return values | {'pairs_expected_hz': pairs_hz, ahead: offset}

    def describe_losses(self, topics: Mapping[str, str]) -> str:
        """Return which topics lose many images and what to do, or ''.

        Args:
            topics: the topic name of each camera.
        """
        losses = []
        for camera, stream in self.streams.items():
            rate = stream.rate()
            if rate is not None and rate[1] >= LOST_SHARE:
                losses.append(
                    f'{rate[1]:.0%} of the images on {topics[camera]} are lost: gaps in the stamps '
                    f'of a camera of {rate[0]:.1f} Hz'
                )
        if not losses:
            return ''
        text = '; '.join(losses)
        middleware = os.environ.get(MIDDLEWARE_VARIABLE) or FAST_DDS
        if not middleware.startswith(FAST_DDS):
            return (
                f'{text}. {middleware} or the network loses them: enlarge the receive buffers of '
                'the system and of the middleware, or compress the images'
            )
        profile = os.environ.get(PROFILE_VARIABLE, 'config/fastdds_images.xml of this package')
        return (
            f'{text}. Start the camera drivers, too, with {PROFILE_VARIABLE} set to '
            f'{profile}: the shared memory that Fast DDS has by default is too small for images'
        )

    def explain_no_pairs(self) -> str:
        """Return why images that arrive on both topics find no partners, and what to do.

        The text is empty while that is unknown.
        """
        parameters = self.parameters
        title = MODALITIES[parameters.x_modality].title
        if parameters.sync_stamp == 'arrival':
            return self._explain_by_arrival(title)
        offset_s = self.offset_s()
        if offset_s is None:
            return ''
        measured = f'the stamps of {title} are {_ahead(offset_s)} those of RGB'
        if parameters.sync_policy == 'exact':
            return f'{measured}, and sync.policy exact pairs equal stamps only: set it to nearest'
        remaining_s = parameters.sync_thermal_offset_s + offset_s
        nearest_s = self._nearest_s(*(stream.stamped_ns[0] for stream in self.streams.values()))
        tolerated_s = max(parameters.sync_max_skew_s, parameters.sync_max_wait_s)
        if abs(remaining_s) <= tolerated_s and nearest_s > parameters.sync_max_skew_s:
            return (
                f'the nearest stamps are {nearest_s:.3f} s apart, and sync.max_skew is '
                f'{parameters.sync_max_skew_s:g} s: raise sync.max_skew'
            )
        if abs(offset_s) > GREATEST_OFFSET_S:
            return (
                f'{measured}, so they come from different clocks: {self.advise("sync.stamp")} '
                'to arrival, or let both drivers stamp with the time of the computer'
            )
        return (
            f'{measured}: {self.advise("sync.thermal_offset")} to {-offset_s:.3f}'
            f'{_or_wait(remaining_s, title)}; if the offset varies, set sync.stamp to arrival'
        )

    def _explain_by_arrival(self, title: str) -> str:
        parameters = self.parameters
        rgb_ns, x_ns = (stream.arrivals_ns for stream in self.streams.values())
        if not (len(rgb_ns) and len(x_ns)):
            return ''
        offset_s, max_skew_s = parameters.sync_thermal_offset_s, parameters.sync_max_skew_s
        if abs(offset_s) > max_skew_s:
            return (
                f'sync.thermal_offset, {offset_s:g} s, is added to the arrival of {title}: set '
                f'it to about 0{_or_wait(offset_s, title)}'
            )
        nearest_s = self._nearest_s(rgb_ns, x_ns)
        if nearest_s > max_skew_s:
            return (
                f'the nearest images arrive {nearest_s:.3f} s apart, and sync.max_skew is '
                f'{max_skew_s:g} s: raise sync.max_skew'
            )
        return (
            f'the nearest images arrive {nearest_s:.3f} s apart, but RGB waits no longer than '
            f'sync.max_wait, {parameters.sync_max_wait_s:g} s: raise sync.max_wait'
        )

    def _nearest_s(self, rgb_ns: np.ndarray, x_ns: np.ndarray) -> float:
        """Return the median distance of RGB's images from the nearest one of X, as matched."""
        offset_ns = seconds_to_ns(self.parameters.sync_thermal_offset_s)
        distances_ns = np.abs(x_ns[None] + offset_ns - rgb_ns[:, None]).min(axis=1)
        return float(np.median(distances_ns)) * 1e-9


def _ahead(offset_s: float) -> str:
    return f'{abs(offset_s):.3f} s {"behind" if offset_s < 0 else "ahead of"}'


def _or_wait(remaining_s: float, title: str) -> str:
    """Return the wait that also helps if X, which is off by `remaining_s`, only arrives late."""
    if not -GREATEST_WAIT_S < remaining_s < 0:
        return ''
    return f', or sync.max_wait to {round_up(-remaining_s)} if {title} only arrives late'


def round_up(seconds: float) -> str:
    """Return seconds with one digit after the point, greater than the given ones."""
    return f'{np.floor(seconds * 10 + 1) / 10:.1f}'
