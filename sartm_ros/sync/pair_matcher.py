"""Pairs RGB and thermal frames that are nearest in time. Pure Python, no ROS.

An RGB frame takes the thermal frame nearest to it, within `max_skew`. It is paired as soon as no
nearer one can come: each stream is in order, and a camera's next frame is taken to be at least nine
tenths of its shortest recent interval away. `max_wait` after its arrival it gets the best so far.

Without `reuse_thermal` a thermal frame serves one RGB frame, so a later RGB frame may have the
better claim to it. It is left to that frame where that is the nearer of the two (mutual nearest
neighbours): of RGB at 30 Hz and thermal at 9 Hz, each thermal frame meets the RGB frame nearest to
it. Where thermal is as fast as RGB the claim must be nearer by half: two free-running cameras half
an interval apart would otherwise swap partners at every jitter and lose a frame each time, while a
stream that lost a frame still falls back into step at once instead of shifting for ever.

A stream that brings nothing while the other goes on is in a gap: a shutter, a loose cable. Where it
is so set, the other one's frames are then given out alone, at once, until the first frame comes
back.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

RATE_SAMPLES = 16
"""Intervals a stream remembers; enough that a lost frame or two does not pass for its rate."""

MIN_RATE_SAMPLES = 4

EARLIEST_NEXT = 0.9
"""The soonest a next frame is expected, as a share of the shortest recent interval. Without that
expectation each frame would wait for the one after it, just to see that it is not nearer."""

REORDER_NS = 100_000_000
"""A frame older than the last by no more than this was overtaken; by more, time jumped back."""

MIN_MISSED = 3
"""Frames of one stream without any of the other before that may be a gap: not after a pause of
both, when one comes back a moment before the other."""

SLOWER_RATIO = 1.1
"""Thermal counts as the slower stream where its interval is this much longer than RGB's."""


@dataclass(frozen=True)
class Pair:
    """One RGB and one thermal message that belong together; all times in nanoseconds.

    Attributes:
        rgb, thermal: the messages as they were given; None in place of one that is in a gap.
        stamp_ns: stamp of the RGB message; of the thermal one (offset included) where it is alone.
        skew_ns: thermal stamp (offset included) minus RGB stamp; 0 where one is alone.
        arrival_ns: monotonic time at which the message that gave `stamp_ns` was given.
    """

    rgb: Any
    thermal: Any
    stamp_ns: int
    skew_ns: int
    arrival_ns: int


@dataclass
class _Frame:
    stamp_ns: int
    msg: Any
    arrival_ns: int
    used: bool = False


@dataclass
class _Stream:
    """The frames of one topic that wait, oldest first, and what is known of those to come."""

    name: str
    frames: deque[_Frame]
    last_ns: int | None = None
    intervals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLES))
    jump_expected: bool = False
    out_ns: int | None = None  # stamp of its last frame that gave a pair its stamp
    missed: int = 0  # frames of the other stream since the last of this one
    missed_from_ns: int = 0  # stamp of the first of them
    missed_for_ns: int = 0  # from there to the last of them

    def interval_ns(self) -> float | None:
        """The usual time between frames, or None while too few have come."""
        if len(self.intervals_ns) < MIN_RATE_SAMPLES:
            return None
        return median(self.intervals_ns)

    def earliest_next_ns(self) -> int | None:
        """No frame with an earlier stamp is to come; None where nothing can be said."""
        if self.last_ns is None or self.jump_expected:
            return None
        known = len(self.intervals_ns) >= MIN_RATE_SAMPLES
        return self.last_ns + max(1, int(EARLIEST_NEXT * min(self.intervals_ns)) if known else 1)

    def is_past(self, stamp_ns: int) -> bool:
        """Whether no frame with this stamp or an earlier one is to come, whatever its rate."""
        return not self.jump_expected and self.last_ns is not None and self.last_ns >= stamp_ns

    def in_gap(self, after_ns: int | None) -> bool:
        """Whether the other stream has gone on for `after_ns` without this one; never with None."""
        if after_ns is None or self.missed < MIN_MISSED:
            return False
        return self.missed_for_ns >= after_ns

    def miss(self, stamp_ns: int) -> None:
        """The other stream has brought a frame."""
        if not self.missed:
            self.missed_from_ns = stamp_ns
        self.missed += 1
        self.missed_for_ns = stamp_ns - self.missed_from_ns

    def restart(self) -> int:
        """Forget everything; returns the number of frames thrown away that had not served."""
        lost = sum(not frame.used for frame in self.frames)
        self.frames.clear()
        self.intervals_ns.clear()
        self.last_ns = None
        self.jump_expected = False
        self.out_ns = None
        return lost


class PairMatcher:
    """Nearest-in-time pairing of two streams; see the module's text for the rule.

    State is bounded: at most `queue_size` waiting frames a stream. Not thread-safe: one thread
    calls it, and it calls nobody, so the caller acts on the returned pairs outside any lock.

    Args:
        max_skew_ns: greatest |thermal - RGB| of a pair, itself allowed.
        max_wait_ns: longest time an RGB frame waits for a partner, on the caller's monotonic clock.
        thermal_offset_ns: added to every thermal stamp.
        reuse_thermal: let a thermal frame serve several RGB frames.
        queue_size: frames a stream may hold; the oldest goes when one more arrives.

    Attributes:
        max_skew_ns: may be changed at any time.
        rgb_alone_after_ns: RGB goes out alone once it has gone on for so long, by its stamps, while
            no thermal frame came; None, the default: never. May be changed at any time.
        thermal_alone_after_ns: likewise of thermal while no RGB frame comes.
        drops: how many frames were dropped, by reason. `rgb_` and `thermal_` are followed by
            `no_stamp` (zero, negative or malformed), `duplicate`, `out_of_order`, `overflow`,
            `reset` (waiting while time jumped back). Besides: `rgb_no_partner` (no thermal frame
            within `max_skew`), `rgb_timeout` (none had come after `max_wait`), `rgb_partner_taken`
            (its thermal frame went to the next RGB frame, which is nearer), `rgb_late` (thermal
            went out alone with a later stamp just before), `thermal_unused`.
        resets: backward jumps of time (a bag that loops, a restarted clock).
        pairs: pairs given out, lone frames included.
    """

    def __init__(
        self,
        max_skew_ns: int,
        max_wait_ns: int,
        *,
        thermal_offset_ns: int = 0,
        reuse_thermal: bool = False,
        queue_size: int = 20,
    ) -> None:
        self.max_skew_ns = max_skew_ns
        self.rgb_alone_after_ns: int | None = None
        self.thermal_alone_after_ns: int | None = None
        self.drops: Counter[str] = Counter()
        self.resets = 0
        self.pairs = 0
        self._max_wait_ns = max_wait_ns
        self._thermal_offset_ns = thermal_offset_ns
        self._reuse_thermal = reuse_thermal
        self._queue_size = queue_size
        self._rgb = _Stream('rgb', deque())
        self._thermal = _Stream('thermal', deque())

    def add_rgb(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take an RGB message stamped `stamp_ns`; `now_ns` is the monotonic time of its arrival."""
        self._add(self._rgb, stamp_ns, stamp_ns, msg, now_ns)
        return self.poll(now_ns)

    def add_thermal(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take a thermal message; arguments as of `add_rgb`."""
        self._add(self._thermal, stamp_ns, stamp_ns + self._thermal_offset_ns, msg, now_ns)
        return self.poll(now_ns)

    def poll(self, now_ns: int) -> list[Pair]:
        """The pairs that are ready at the monotonic time `now_ns`, stamps strictly increasing."""
        pairs = []
        alone = self._thermal.in_gap(self.rgb_alone_after_ns)
        while self._rgb.frames:
            frame = self._rgb.frames[0]
            if _is_late(frame, self._thermal):
                self._rgb.frames.popleft()
                self.drops['rgb_late'] += 1
                continue
            # Nothing is waited for in a gap.
            expired = alone or now_ns - frame.arrival_ns >= self._max_wait_ns
            decided, partner = self._decide(frame, expired, alone)
            if not decided:
                break
            self._rgb.frames.popleft()
            if partner is not None:
                pairs.append(self._pair(frame, partner))
            elif alone:
                pairs.append(self._alone(self._rgb, frame))
        self._forget_thermal()
        if not self._rgb.frames and self._rgb.in_gap(self.thermal_alone_after_ns):
            pairs += self._thermal_alone()
        return pairs

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time at which `poll` has something to do; None while no frame waits."""
        if not self._rgb.frames:
            return None
        return self._rgb.frames[0].arrival_ns + self._max_wait_ns

    @property
    def held(self) -> int:
        """Messages that are kept, of both topics; at most twice `queue_size`."""
        return len(self._rgb.frames) + len(self._thermal.frames)

    def _add(self, stream: _Stream, given_ns: int, stamp_ns: int, msg: Any, now_ns: int) -> None:
        if given_ns <= 0:
            self.drops[f'{stream.name}_no_stamp'] += 1
            return
        if stream.last_ns is not None and stamp_ns <= stream.last_ns:
            if stamp_ns == stream.last_ns:
                self.drops[f'{stream.name}_duplicate'] += 1
                return
            if stream.last_ns - stamp_ns <= REORDER_NS:
                self.drops[f'{stream.name}_out_of_order'] += 1
                return
            self._jump_back(stream)
        if stream.last_ns is not None:
            stream.intervals_ns.append(stamp_ns - stream.last_ns)
        stream.last_ns = stamp_ns
        stream.missed = 0
        self._other(stream).miss(stamp_ns)
        stream.frames.append(_Frame(stamp_ns, msg, now_ns))
        if len(stream.frames) > self._queue_size:
            oldest = stream.frames.popleft()
            if not oldest.used:
                self.drops[f'{stream.name}_overflow'] += 1

    def _jump_back(self, stream: _Stream) -> None:
        """Start anew; the other stream follows with its own jump, which must not undo this one."""
        follows = stream.jump_expected
        self.drops[f'{stream.name}_reset'] += stream.restart()
        self._other(stream).missed = 0
        if follows:
            return
        self.resets += 1
        other = self._other(stream)
        heard = other.last_ns
        self.drops[f'{other.name}_reset'] += other.restart()
        other.last_ns = heard
        other.jump_expected = heard is not None

    def _other(self, stream: _Stream) -> _Stream:
        return self._thermal if stream is self._rgb else self._rgb

    def _decide(self, rgb: _Frame, expired: bool, alone: bool) -> tuple[bool, _Frame | None]:
        """(whether the oldest RGB frame's case is closed, its partner if it gets one).

        With `alone` one without a partner is not lost.
        """
        within = [
            frame
            for frame in self._thermal.frames
            if abs(frame.stamp_ns - rgb.stamp_ns) <= self.max_skew_ns
        ]
        best = min(within, key=lambda frame: abs(frame.stamp_ns - rgb.stamp_ns), default=None)
        if best is None:
            # Not by what is expected: waiting delays nobody, as the next RGB frame has none either.
            if not expired and not self._thermal.is_past(rgb.stamp_ns + self.max_skew_ns):
                return False, None
            if not alone:
                self.drops['rgb_timeout' if expired else 'rgb_no_partner'] += 1
            return True, None
        # A thermal frame to come is of interest where it would be nearer than the best so far.
        reach_ns = abs(best.stamp_ns - rgb.stamp_ns)
        if not expired and self._may_come(self._thermal, rgb.stamp_ns, reach_ns):
            return False, None
        if self._reuse_thermal or best.stamp_ns <= rgb.stamp_ns:
            return True, best

        claim_ns = (best.stamp_ns - rgb.stamp_ns) * self._claim_factor()
        if len(self._rgb.frames) == 1:
            if not expired and self._may_come(self._rgb, best.stamp_ns, claim_ns):
                return False, None
            return True, best
        rival_ns = self._rgb.frames[1].stamp_ns
        if abs(rival_ns - best.stamp_ns) >= claim_ns or best is not self._nearest(rival_ns):
            return True, best
        # Its first choice is the next frame's; what lies before it is nobody else's.
        earlier = [frame for frame in within if frame.stamp_ns <= rgb.stamp_ns]
        if not earlier:
            if not alone:
                self.drops['rgb_partner_taken'] += 1
            return True, None
        return True, earlier[-1]

    def _may_come(self, stream: _Stream, stamp_ns: int, reach_ns: float) -> bool:
        """Whether `stream` may still bring a frame less than `reach_ns` away from `stamp_ns`."""
        earliest_ns = stream.earliest_next_ns()
        if earliest_ns is None:
            return reach_ns > 0
        return max(0, earliest_ns - stamp_ns) < reach_ns

    def _claim_factor(self) -> float:
        """How much nearer the next RGB frame must be to a thermal frame to have it."""
        rgb_ns, thermal_ns = self._rgb.interval_ns(), self._thermal.interval_ns()
        if rgb_ns is None or thermal_ns is None or thermal_ns > SLOWER_RATIO * rgb_ns:
            return 1.0
        return 0.5

    def _nearest(self, stamp_ns: int) -> _Frame | None:
        return min(
            self._thermal.frames, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None
        )

    def _pair(self, rgb: _Frame, thermal: _Frame) -> Pair:
        """Mark the thermal frame as served; what is older than it is of no use any more."""
        thermal.used = True
        frames = self._thermal.frames
        while frames and frames[0].stamp_ns < thermal.stamp_ns:
            self._drop_thermal(frames.popleft())
        if not self._reuse_thermal:
            frames.popleft()
        self._thermal.jump_expected = self._rgb.jump_expected = False
        self.pairs += 1
        self._rgb.out_ns = rgb.stamp_ns
        skew_ns = thermal.stamp_ns - rgb.stamp_ns
        return Pair(rgb.msg, thermal.msg, rgb.stamp_ns, skew_ns, rgb.arrival_ns)

    def _thermal_alone(self) -> list[Pair]:
        """The newest thermal frame, if it has not served: what waited before it is too old."""
        frames = self._thermal.frames
        while len(frames) > 1:
            self._drop_thermal(frames.popleft())
        if not frames or frames[0].used:
            return []
        frame = frames.popleft()
        if _is_late(frame, self._rgb):
            self._drop_thermal(frame)
            return []
        return [self._alone(self._thermal, frame)]

    def _alone(self, stream: _Stream, frame: _Frame) -> Pair:
        self.pairs += 1
        stream.out_ns = frame.stamp_ns
        rgb, thermal = (frame.msg, None) if stream is self._rgb else (None, frame.msg)
        return Pair(rgb, thermal, frame.stamp_ns, 0, frame.arrival_ns)

    def _forget_thermal(self) -> None:
        """Drop the thermal frames that are too old for every RGB frame that waits or is to come."""
        if self._rgb.jump_expected:
            return
        waiting = self._rgb.frames
        oldest_ns = waiting[0].stamp_ns if waiting else self._rgb.last_ns
        if oldest_ns is None:
            return
        frames = self._thermal.frames
        while frames and frames[0].stamp_ns < oldest_ns - self.max_skew_ns:
            self._drop_thermal(frames.popleft())

    def _drop_thermal(self, frame: _Frame) -> None:
        if not frame.used:
            self.drops['thermal_unused'] += 1


def _is_late(frame: _Frame, other: _Stream) -> bool:
    """Whether a frame of the other stream has gone out with a later stamp, and time not back."""
    return other.out_ns is not None and 0 <= other.out_ns - frame.stamp_ns <= REORDER_NS
