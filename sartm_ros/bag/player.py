"""Plays a bag over DDS at the recorded rate, with `/clock`: `python -m sartm_ros.bag.player BAG`.

For machines without `ros2 bag`. Messages are published as the bag stores them, without being
deserialised, on the topics they were recorded from.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from sartm_model.errors import SartmError
from sartm_ros.bag.reading import RawMessage, read_raw
from sartm_ros.bag.storage import open_bag
from sartm_ros.settings.fastdds import use_image_profile

CLOCK = '/clock'
CLOCK_PERIOD_S = 0.01  # bag seconds between two messages on /clock while no frame is due
WAIT_S = 5.0
SETTLE_S = 0.5
"""How long the first message is held back once every topic has a subscriber: discovery ends on one
side before it ends on the other."""
MIN_ROUND_S = 0.1
"""The shortest time that a round of a looped bag takes, which may have one message alone."""
_NS = 1_000_000_000


def message_class(type_name: str) -> Any:
    """Return the class of e.g. 'sensor_msgs/msg/Image'. Raises SartmError if not installed."""
    package, _, name = type_name.partition('/')
    try:
        return getattr(import_module(f'{package}.msg'), name.removeprefix('msg/'))
    except (ImportError, AttributeError) as error:
        raise SartmError(f'message type {type_name} is not installed') from error


class BagPlayer:
    """Publishers for the topics of a bag and for `/clock`.

    The publishers are reliable, which reliable and best-effort subscriptions both accept. If
    `/clock` is one of the topics, as in a bag of a simulation, its messages alone are published
    there: the stamps follow that time, and the bag's times of receiving may be of another clock.

    Args:
        node: creates the publishers; it need not be spun by an executor.
        types: message type of each topic to play.
        latched: the topics of which late subscribers, too, receive the last messages.
    """

    def __init__(self, node: Node, types: dict[str, str], latched: Collection[str] = ()) -> None:
        self.publishers: dict[str, Publisher] = {}
        for topic, name in types.items():
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
            if topic in latched:
                qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
            self.publishers[topic] = node.create_publisher(message_class(name), topic, qos)
        self._clock = None if CLOCK in types else node.create_publisher(Clock, CLOCK, 10)

    def play(
        self,
        messages: Iterable[RawMessage],
        *,
        rate: float = 1.0,
        on_publish: Callable[[RawMessage, float], None] | None = None,
    ) -> None:
        """Publish each message when it is due, or at once if it is late.

        Args:
            messages: in time order; those of topics without a publisher are skipped.
            rate: speed relative to the recording, more than 0.
            on_publish: called with each message and `time.monotonic()` just before it is
                published; what it raises ends the playing.
        """
        start_s = time.monotonic()
        first_ns = ticked_ns = -1
        for message in messages:
            if message.topic not in self.publishers:
                continue
            if first_ns < 0:
                first_ns = message.time_ns
            while (ahead_ns := message.time_ns - first_ns - self._played_ns(start_s, rate)) > 0:
                time.sleep(min(ahead_ns / _NS, CLOCK_PERIOD_S) / rate)
                ticked_ns = min(first_ns + self._played_ns(start_s, rate), message.time_ns)
                self.tick(ticked_ns)
            if ticked_ns < message.time_ns:
                ticked_ns = message.time_ns
                self.tick(ticked_ns)
            if on_publish is not None:
                on_publish(message, time.monotonic())
            self.publishers[message.topic].publish(message.data)

    def wait_for_subscribers(self, limit_s: float) -> list[str]:
        """Wait until every topic but `/clock` has a subscriber, and return those that have none.

        Args:
            limit_s: the longest wait, seconds.
        """
        end_s = time.monotonic() + limit_s
        publishers = {t: p for t, p in self.publishers.items() if t != CLOCK}
        while missing := [t for t, p in publishers.items() if not p.get_subscription_count()]:
            if time.monotonic() >= end_s:
                break
            time.sleep(0.02)
        if len(missing) < len(publishers):
            time.sleep(min(SETTLE_S, limit_s))
        return missing

    def flush(self) -> None:
        """Wait until reliable subscriptions have everything, at most one second a topic."""
        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1))

    def tick(self, time_ns: int) -> None:
        """Publish a time on `/clock`, unless the bag has that topic."""
        if self._clock is None:
            return
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = divmod(time_ns, _NS)
        self._clock.publish(clock)

    @staticmethod
    def _played_ns(start_s: float, rate: float) -> int:
        return int((time.monotonic() - start_s) * rate * _NS)


def playable_topics(bag: Path) -> tuple[dict[str, str], set[str], list[str]]:
    """Return what can be played of a bag.

    Returns:
        The type of each topic that has messages; the names of latched topics, as `OpenBag` has
        them; and the topics that cannot be played, for a message.
    """
    playable: dict[str, str] = {}
    with open_bag(bag) as opened:
        left_out = [f'{topic} (not CDR)' for topic in opened.foreign]
        for topic, (name, count) in opened.topics.items():
            try:
                message_class(name)
            except SartmError:
                left_out.append(f'{topic} ({name} is not installed)')
            else:
                playable |= {topic: name} if count else {}
        return playable, opened.latched, left_out


def main(argv: list[str] | None = None) -> int:
    """Run the player's command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m sartm_ros.bag.player',
        description='Play a rosbag2 bag to DDS at the recorded rate, with /clock.',
    )
    parser.add_argument('bag', type=Path, help='rosbag2 folder, or one .mcap or .db3 file')
    parser.add_argument('--rate', type=float, default=1.0, help='speed (default: %(default)s)')
    parser.add_argument('--loop', action='store_true', help='start again at the end, until Ctrl-C')
    parser.add_argument(
        '--wait',
        metavar='S',
        type=float,
        default=WAIT_S,
        help='wait at most S seconds until every topic has a subscriber (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    if not 0 < args.rate < math.inf:
        parser.error(f'--rate is {args.rate}; expected more than 0')
    if not args.wait >= 0:
        parser.error(f'--wait is {args.wait}; expected 0 or more')
    try:
        types, latched, left_out = playable_topics(args.bag)
        if left_out:
            print(f'not played: {", ".join(left_out)}', file=sys.stderr)
        if not types:
            raise SartmError(f'{args.bag} has no messages that can be played')
        use_image_profile()
        rclpy.init(
            signal_handler_options=SignalHandlerOptions.NO
        )  # Ctrl-C raises KeyboardInterrupt
        player = BagPlayer(rclpy.create_node('bag_player'), types, latched)
        print(f'waiting for subscribers, at most {args.wait:g} s', file=sys.stderr)
        if missing := player.wait_for_subscribers(args.wait):
            print(f'playing without a subscriber of {", ".join(missing)}', file=sys.stderr)
        while True:
            begun_s = time.monotonic()
            player.play(read_raw(args.bag, list(types)), rate=args.rate)
            if not args.loop:
                player.flush()
                return 0
            time.sleep(max(begun_s + MIN_ROUND_S - time.monotonic(), 0.0))
    except SartmError as error:
        print(f'{parser.prog}: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
