"""Pairs the frames of an RGB camera and of a second one, X, by time. Pure Python, no ROS.

An RGB frame takes the frame of X nearest to it, within `max_skew`. It is paired as soon as no
nearer one can arrive: the stamps of each stream increase, and a camera's next frame is expected no
sooner than nine tenths of its shortest recent interval. `max_wait` after its arrival an RGB frame
gets the best partner so far.

Without `reuse_x` a frame of X serves one RGB frame, so a later RGB frame may have the
better claim to it. It is left to that frame if that is the nearer of the two (mutual nearest
neighbours): of RGB at 30 Hz and X at 9 Hz, each frame of X meets the RGB frame nearest to
it. If X is as fast as RGB, the later frame must be nearer by half: otherwise two free-running
cameras half an interval apart would swap partners at every jitter and lose a frame each time, while
a stream that has lost a frame still resynchronises at once.

A stream without frames while the other goes on is in a gap, for instance because of a shutter or a
loose cable. If so set, the other stream's frames are then output alone and at once, until the first
frame returns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sartm_ros.sync.frame_stream import FrameStream, WaitingMessage

REORDER_NS = 100_000_000
"""A frame older than the last one by at most this was overtaken; if by more, time jumped back."""

SLOWER_RATIO = 1.1
"""X counts as the slower stream if its interval is at least this much longer than RGB's."""


@dataclass(frozen=True)
class Pair:
    """One message of RGB and one of X that belong together, or one alone; times in nanoseconds.

    Attributes:
        rgb, x: the messages as they were given; None for a stream in a gap.
        stamp_ns: stamp of the RGB message; without RGB of X, offset included.
        skew_ns: stamp of X (offset included) minus RGB stamp; 0 if one is missing.
        arrival_ns: monotonic time at which the message that gave `stamp_ns` arrived.
    """

    rgb: Any
    x: Any
    stamp_ns: int
    skew_ns: int
    arrival_ns: int


class PairMatcher:
    """Nearest-in-time pairing of two streams; see the module's text for the rule.

    At most `queue_size` frames of each stream wait. The class is not thread-safe. It calls nobody:
    the caller acts on the returned pairs outside any lock.

    Args:
        max_skew_ns: greatest |X - RGB| of a pair, itself allowed.
        max_wait_ns: longest time an RGB frame waits for a partner, on the caller's monotonic clock.
        x_name: name of X in `drops`.
        x_offset_ns: added to every stamp of X.
        reuse_x: let a frame of X serve several RGB frames.
        queue_size: frames of each stream that may wait; one more replaces the oldest.

    Attributes:
        max_skew_ns: may be changed at any time.
        rgb_alone_after_ns: RGB frames are output alone when RGB has gone on for this long, by its
            stamps, without a frame of X; None, the default: never; 0: always and at once, for a
            single camera. May be changed at any time.
        x_alone_after_ns: the same for frames of X without RGB.
        drops: the number of dropped frames, by reason. `rgb_` and `X_`, where X is `x_name`, are
            followed by `no_stamp` (zero, negative or malformed), `duplicate`, `out_of_order`,
            `overflow`, `reset` (waiting when time jumped back), `stopped` (waiting at `stop`).
            Besides: `rgb_no_partner` (no frame of X within `max_skew`), `rgb_timeout` (none had
            arrived after `max_wait`), `rgb_partner_taken` (its frame of X went to the next RGB
            frame, which is nearer), `rgb_late` (X was output alone with a later stamp just before),
            `X_unused`.
    """

    def __init__(
        self,
        max_skew_ns: int,
        max_wait_ns: int,
        *,
        x_name: str,
        x_offset_ns: int = 0,
        reuse_x: bool = False,
        queue_size: int = 20,
    ) -> None:
        self.max_skew_ns = max_skew_ns
        self.rgb_alone_after_ns: int | None = None
        self.x_alone_after_ns: int | None = None
        self.drops: Counter[str] = Counter()
        self._max_wait_ns = max_wait_ns
        self._x_offset_ns = x_offset_ns
        self._reuse_x = reuse_x
        self._queue_size = queue_size
        self._rgb = FrameStream('rgb')
        self._x = FrameStream(x_name)

    def add_rgb(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take an RGB message and return the pairs that are ready.

        Args:
            stamp_ns: its stamp.
            msg: the message, not read.
            now_ns: the monotonic time of its arrival.
        """
        self._add(self._rgb, stamp_ns, stamp_ns, msg, now_ns)
        return self.poll(now_ns)

    def add_x(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take a message of X and return the pairs that are ready; see `add_rgb`."""
        self._add(self._x, stamp_ns, stamp_ns + self._x_offset_ns, msg, now_ns)
        return self.poll(now_ns)

    def poll(self, now_ns: int) -> list[Pair]:
        """Return the pairs that are ready at the monotonic time `now_ns`, by increasing stamp."""
        pairs = []
        alone = self._x.in_gap(self.rgb_alone_after_ns)
        while self._rgb.frames:
            frame = self._rgb.frames[0]
            if self._x.is_late(frame, self._late_ns):
                self._rgb.frames.popleft()
                self.drops['rgb_late'] += 1
                continue
            # In a gap frames do not wait.
            expired = alone or now_ns - frame.arrival_ns >= self._max_wait_ns
            decided, partner = self._decide(frame, expired, alone)
            if not decided:
                break
            self._rgb.frames.popleft()
            if partner is not None:
                pairs.append(self._make_pair(frame, partner))
            elif alone:
                pairs.append(self._output_alone(self._rgb, frame))
        self._drop_old_x()
        if not self._rgb.frames and self._rgb.in_gap(self.x_alone_after_ns):
            pairs += self._output_newest_x()
        return pairs

    def stop(self) -> None:
        """Drop the frames that wait."""
        for stream in (self._rgb, self._x):
            unused = sum(not frame.used for frame in stream.frames)
            self.drops[f'{stream.name}_stopped'] += unused
            stream.frames.clear()

    @property
    def deadline_ns(self) -> int | None:
        """The monotonic time at which `poll` has something to do; None while no frame waits."""
        if not self._rgb.frames:
            return None
        return self._rgb.frames[0].arrival_ns + self._max_wait_ns

    @property
    def _late_ns(self) -> int:
        """The greatest age of a frame, relative to what was output, that is no jump of time.

        A stream that lags by `max_skew` still gives pairs, so its frames may be as old as that.
        """
        return max(REORDER_NS, self.max_skew_ns)

    def _add(
        self, stream: FrameStream, raw_stamp_ns: int, stamp_ns: int, msg: Any, now_ns: int
    ) -> None:
        if raw_stamp_ns <= 0:
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
        stream.append(WaitingMessage(stamp_ns, msg, now_ns))
        self._other(stream).count_missed(stamp_ns)
        if len(stream.frames) > self._queue_size:
            oldest = stream.frames.popleft()
            if not oldest.used:
                self.drops[f'{stream.name}_overflow'] += 1

    def _jump_back(self, stream: FrameStream) -> None:
        """Restart both streams.

        The other stream follows with a jump of its own, which must not restart them again.
        """
        follows = stream.jump_expected
        self.drops[f'{stream.name}_reset'] += stream.restart()
        other = self._other(stream)
        other.reset_gap()
        if follows:
            return
        last_ns = other.last_ns
        self.drops[f'{other.name}_reset'] += other.restart()
        other.last_ns = last_ns
        other.jump_expected = last_ns is not None

    def _other(self, stream: FrameStream) -> FrameStream:
        return self._x if stream is self._rgb else self._rgb

    def _decide(
        self, rgb: WaitingMessage, expired: bool, alone: bool
    ) -> tuple[bool, WaitingMessage | None]:
        """Decide on the oldest RGB frame.

        Args:
            rgb: the frame.
            expired: it must not wait any longer.
            alone: without a partner it is output alone and so is not dropped.

        Returns:
            Whether the frame is done waiting, and its partner if it gets one.
        """
        within = [
            frame
            for frame in self._x.frames
            if abs(frame.stamp_ns - rgb.stamp_ns) <= self.max_skew_ns
        ]
        best = min(within, key=lambda frame: abs(frame.stamp_ns - rgb.stamp_ns), default=None)
        if best is None:
            # The expected rate is not used here: waiting delays no result, because the next RGB
            # frame has no partner either.
            if not expired and not self._x.is_past(rgb.stamp_ns + self.max_skew_ns):
                return False, None
            if not alone:
                self.drops['rgb_timeout' if expired else 'rgb_no_partner'] += 1
            return True, None
        # Wait while a nearer frame of X may arrive.
        distance_ns = abs(best.stamp_ns - rgb.stamp_ns)
        if not expired and self._x.may_still_come(rgb.stamp_ns, distance_ns):
            return False, None
        if self._reuse_x or best.stamp_ns <= rgb.stamp_ns:
            return True, best

        # The partner is later than this frame, so the next RGB frame may be nearer to it.
        claim_ns = (best.stamp_ns - rgb.stamp_ns) * self._claim_factor()
        if len(self._rgb.frames) == 1:
            if not expired and self._rgb.may_still_come(best.stamp_ns, claim_ns):
                return False, None
            return True, best
        next_ns = self._rgb.frames[1].stamp_ns
        if abs(next_ns - best.stamp_ns) >= claim_ns or best is not self._nearest(next_ns):
            return True, best
        # The partner goes to the next RGB frame; an earlier frame of X is of no use to that.
        earlier = [frame for frame in within if frame.stamp_ns <= rgb.stamp_ns]
        if not earlier:
            if not alone:
                self.drops['rgb_partner_taken'] += 1
            return True, None
        return True, earlier[-1]

    def _claim_factor(self) -> float:
        """Return how near the next RGB frame must be to take a partner, relative to this frame."""
        rgb_ns, x_ns = self._rgb.interval_ns(), self._x.interval_ns()
        if rgb_ns is None or x_ns is None or x_ns > SLOWER_RATIO * rgb_ns:
            return 1.0
        return 0.5

    def _nearest(self, stamp_ns: int) -> WaitingMessage | None:
        return min(self._x.frames, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)

    def _make_pair(self, rgb: WaitingMessage, x: WaitingMessage) -> Pair:
        """Return a pair; drop the frames of X that are older than its own."""
        x.used = True
        frames = self._x.frames
        while frames and frames[0].stamp_ns < x.stamp_ns:
            self._count_unused(frames.popleft())
        if not self._reuse_x:
            frames.popleft()
        self._x.jump_expected = self._rgb.jump_expected = False
        self._rgb.output_ns = rgb.stamp_ns
        skew_ns = x.stamp_ns - rgb.stamp_ns
        return Pair(rgb.msg, x.msg, rgb.stamp_ns, skew_ns, rgb.arrival_ns)

    def _output_newest_x(self) -> list[Pair]:
        """Return the newest frame of X alone, if unused; drop those before it as too old."""
        frames = self._x.frames
        while len(frames) > 1:
            self._count_unused(frames.popleft())
        if not frames or frames[0].used:
            return []
        frame = frames.popleft()
        if self._rgb.is_late(frame, self._late_ns):
            self._count_unused(frame)
            return []
        return [self._output_alone(self._x, frame)]

    def _output_alone(self, stream: FrameStream, frame: WaitingMessage) -> Pair:
        stream.output_ns = frame.stamp_ns
        rgb, x = (frame.msg, None) if stream is self._rgb else (None, frame.msg)
        return Pair(rgb, x, frame.stamp_ns, 0, frame.arrival_ns)

    def _drop_old_x(self) -> None:
        """Drop the frames of X that are too old for every waiting or future RGB frame."""
        if self._rgb.jump_expected:
            return
        waiting = self._rgb.frames
        oldest_ns = waiting[0].stamp_ns if waiting else self._rgb.last_ns
        if oldest_ns is None:
            return
        frames = self._x.frames
        while frames and frames[0].stamp_ns < oldest_ns - self.max_skew_ns:
            self._count_unused(frames.popleft())

    def _count_unused(self, frame: WaitingMessage) -> None:
        if not frame.used:
            self.drops[f'{self._x.name}_unused'] += 1
