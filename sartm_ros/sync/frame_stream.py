"""The waiting frames of one topic, its frame rate, and when it is in a gap. Pure Python, no ROS."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

RATE_SAMPLES = 16
"""Number of intervals that a stream remembers: enough that one or two lost frames do not change its
rate."""

MIN_RATE_SAMPLES = 4

EARLIEST_NEXT = 0.9
"""The soonest that the next frame is expected, as a fraction of the shortest recent interval.
Without this expectation each frame would wait for the one after it, only to see that it is not
nearer."""

MIN_MISSED = 3
"""Number of frames of one stream without any of the other from which on there may be a gap. After a
pause of both streams one of them returns a moment before the other."""


@dataclass
class WaitingMessage:
    """A waiting message; times in nanoseconds.

    Attributes:
        stamp_ns: its stamp, offset included.
        msg: the message.
        arrival_ns: monotonic time of its arrival.
        used: whether it has been part of a pair.
    """

    stamp_ns: int
    msg: Any
    arrival_ns: int
    used: bool = False


@dataclass
class FrameStream:
    """The waiting frames of one topic, oldest first, and what is known of the next ones.

    Attributes:
        name: of the camera, such as 'rgb' or 'thermal'.
        frames: the waiting frames.
        last_ns: stamp of the newest frame, or None.
        jump_expected: the other stream has jumped back in time, so this one will.
        output_ns: stamp of its last frame that gave a pair its stamp, or None.
    """

    name: str
    frames: deque[WaitingMessage] = field(default_factory=deque)
    last_ns: int | None = None
    jump_expected: bool = False
    output_ns: int | None = None
    _intervals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLES))
    _missed: int = 0  # frames of the other stream since the last one of this stream
    _missed_from_ns: int = 0  # stamp of the first of them
    _missed_for_ns: int = 0  # time from the first to the last of them

    def append(self, frame: WaitingMessage) -> None:
        """Add the newest frame."""
        if self.last_ns is not None:
            self._intervals_ns.append(frame.stamp_ns - self.last_ns)
        self.last_ns = frame.stamp_ns
        self._missed = 0
        self.frames.append(frame)

    def interval_ns(self) -> float | None:
        """Return the usual time between frames, or None while it is unknown."""
        if len(self._intervals_ns) < MIN_RATE_SAMPLES:
            return None
        return median(self._intervals_ns)

    def may_still_come(self, stamp_ns: int, distance_ns: float) -> bool:
        """Return whether a frame less than `distance_ns` away from `stamp_ns` may still arrive.

        Stamps increase, and the next frame is expected no sooner than `EARLIEST_NEXT`. At least one
        frame must be waiting.
        """
        if self.jump_expected:
            return distance_ns > 0
        known = len(self._intervals_ns) >= MIN_RATE_SAMPLES
        interval_ns = int(EARLIEST_NEXT * min(self._intervals_ns)) if known else 1
        earliest_ns = self.frames[-1].stamp_ns + max(1, interval_ns)
        return max(0, earliest_ns - stamp_ns) < distance_ns

    def is_past(self, stamp_ns: int) -> bool:
        """Return whether no frame with this stamp or an earlier one can arrive, at any rate."""
        return not self.jump_expected and self.last_ns is not None and self.last_ns >= stamp_ns

    def is_late(self, frame: WaitingMessage, tolerance_ns: int) -> bool:
        """Return whether a frame of this stream was output shortly after the stamp of `frame`.

        A difference above `tolerance_ns` means that time has jumped back, and `frame` is not late.
        """
        return self.output_ns is not None and 0 <= self.output_ns - frame.stamp_ns <= tolerance_ns

    def in_gap(self, after_ns: int | None) -> bool:
        """Return whether the other stream has gone on for `after_ns` without this one.

        With None there is never a gap, and with 0 always: the other stream is the only one.
        """
        if after_ns == 0:
            return True
        if after_ns is None or self._missed < MIN_MISSED:
            return False
        return self._missed_for_ns >= after_ns

    def count_missed(self, stamp_ns: int) -> None:
        """Count a frame of the other stream."""
        if not self._missed:
            self._missed_from_ns = stamp_ns
        self._missed += 1
        self._missed_for_ns = stamp_ns - self._missed_from_ns

    def reset_gap(self) -> None:
        """Count the frames of the other stream from 0 again."""
        self._missed = 0

    def restart(self) -> int:
        """Forget everything; return the number of frames discarded that had not been used."""
        lost = sum(not frame.used for frame in self.frames)
        self.frames.clear()
        self._intervals_ns.clear()
        self.last_ns = None
        self.jump_expected = False
        self.output_ns = None
        return lost
