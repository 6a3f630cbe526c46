"""Records what the node publishes while a bag is played to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String
from tqdm import tqdm

from sartm_ros.bag.player import BagPlayer
from sartm_ros.bag.reading import (
    RGB_TOPIC,
    BagWriter,
    RawMessage,
    bag_topics,
    decode,
    default_x_topic,
    read_raw,
)
from sartm_ros.messages.images import stamp_of

LABELS = '/sartm/labels'
OVERLAY = '/sartm/overlay'
CLASSES = '/sartm/classes'
DIAGNOSTICS = '/diagnostics'
RETRY_S = 1.0  # until a service is called again that has not answered

WaitFor = Callable[[str, Callable[[], bool]], None]
"""Waits until a condition holds; the text describes what is wrong while it does not."""


@dataclass
class Recording:
    """What was measured besides the recorded bag.

    Attributes:
        published_s: for each pass through the bag, the monotonic time at which the message of each
            (topic, header stamp in ns) was published.
        received_s: for each pass, the monotonic time at which the labels of each header stamp
            arrived.
        overlays: number of overlays that arrived.
        counters: the node's counters, from its last diagnostics.
        exit_status: of the node.
        ended_by: the signal that ended the node; another than SIGINT if it did not end by that.
    """

    published_s: list[dict[tuple[str, int], float]] = field(default_factory=list)
    received_s: list[dict[int, float]] = field(default_factory=list)
    overlays: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    exit_status: int | None = None
    ended_by: str = ''


@contextmanager
def open_recorder(context: Context, bag: BagWriter, x_modality: str) -> Iterator[Recorder]:
    """Subscribe to the node's outputs and write them to `bag` until the block ends.

    Args:
        context: of rclpy.
        bag: receives the messages.
        x_modality: of the second camera.
    """
    node = Node('recorder', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    recorder = Recorder(node, bag, x_modality)
    thread.start()
    try:
        yield recorder
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()


class Recorder:
    """Subscribes to what the node publishes, plays a bag to it and waits for the last output."""

    def __init__(self, node: Node, bag: BagWriter, x_modality: str) -> None:
        self.recording = Recording()
        self._x_modality = x_modality
        self._node = node
        self._bag = bag
        self._reports = 0  # diagnostics messages received
        self._get_state = node.create_client(GetState, '/sartm/get_state')
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._outputs = [
            self._subscribe(Image, LABELS, QoSProfile(depth=10)),
            self._subscribe(Image, OVERLAY, QoSProfile(depth=10)),
            self._subscribe(String, CLASSES, latched),
            self._subscribe(DiagnosticArray, DIAGNOSTICS, QoSProfile(depth=10)),
        ]

    def play(self, bag: Path, passes: int, wait_for: WaitFor) -> None:
        """Wait until the node is ready, play the bag `passes` times and wait for the last output.

        Args:
            bag: with the node's default topics.
            passes: the stamps and the clock jump back between two passes.
            wait_for: waits for a condition; what it raises ends the playing.
        """
        present = bag_topics(bag)
        inputs = {
            topic: present[topic].type for topic in (RGB_TOPIC, default_x_topic(self._x_modality))
        }
        player = BagPlayer(self._node, inputs)
        publishers = player.publishers.values()
        wait_for('the node is not active', self._is_active())
        wait_for(
            'not all topics are connected',
            lambda: (
                all(publisher.get_subscription_count() for publisher in publishers)
                and all(output.get_publisher_count() for output in self._outputs)
            ),
        )
        # Discovery on the node's side may take longer than on this side. A diagnostics message
        # that arrives now shows that the node has discovered this process.
        before = self._reports
        wait_for('the node publishes no diagnostics', lambda: self._reports > before)

        progress = tqdm(total=passes * sum(present[t].messages for t in inputs), disable=None)

        def on_publish(message: RawMessage, now_s: float) -> None:
            key = (message.topic, stamp_of(decode(message).header))
            self.recording.published_s[-1][key] = now_s
            progress.update()

        for _ in range(passes):
            self.recording.received_s.append({})
            self.recording.published_s.append({})
            player.play(read_raw(bag, list(inputs)), on_publish=on_publish)
        progress.close()
        wait_for('the node has not finished', self._has_finished())

    def _subscribe(self, message_type: Any, topic: str, qos: QoSProfile) -> Any:
        type_name = f'{message_type.__module__.split(".")[0]}/msg/{message_type.__name__}'

        def record(data: bytes) -> None:
            now_s = time.monotonic()
            raw = RawMessage(topic, type_name, time.time_ns(), data)
            self._bag.write(raw)
            self._count(topic, decode(raw), now_s)

        return self._node.create_subscription(message_type, topic, record, qos, raw=True)

    def _count(self, topic: str, message: Any, now_s: float) -> None:
        if topic == LABELS:
            stamp_ns = stamp_of(message.header)
            passes = zip(self.recording.published_s, self.recording.received_s, strict=False)
            # Stamps repeat in every pass: the labels belong to the latest one that published it.
            candidates = [got for sent, got in passes if (RGB_TOPIC, stamp_ns) in sent]
            if candidates:
                candidates[-1][stamp_ns] = now_s
        elif topic == OVERLAY:
            self.recording.overlays += 1
        elif topic == DIAGNOSTICS:
            values = {v.key: v.value for status in message.status for v in status.values}
            self.recording.counters = {
                k: int(v) for k, v in values.items() if v.lstrip('-').isdigit()
            }
            self._reports += 1

    def _is_active(self) -> Callable[[], bool]:
        """Return a condition: the node's lifecycle state is active. It retries lost calls."""
        call: Any = None
        called_s = 0.0

        def holds() -> bool:
            nonlocal call, called_s
            if call is not None and call.done():
                state = call.result().current_state.id
                call = None
                return bool(state == State.PRIMARY_STATE_ACTIVE)
            overdue = call is None or time.monotonic() - called_s > RETRY_S
            if self._get_state.service_is_ready() and overdue:
                call, called_s = self._get_state.call_async(GetState.Request()), time.monotonic()
            return False

        return holds

    def _has_finished(self) -> Callable[[], bool]:
        """Return a condition: two diagnostics in a row are equal and have no pair in progress."""
        reports = self._reports
        previous: dict[str, int] = {}

        def holds() -> bool:
            nonlocal reports, previous
            if self._reports == reports:
                return False
            reports, counters = self._reports, self.recording.counters
            finished = counters == previous and pairs_in_progress(counters, self._x_modality) == 0
            previous = counters
            return finished

        return holds


def drops(counters: dict[str, int]) -> dict[str, int]:
    """Return the numbers of dropped messages and pairs by reason."""
    prefix = 'dropped.'
    return {k.removeprefix(prefix): n for k, n in counters.items() if k.startswith(prefix) and n}


def pairs_in_progress(counters: dict[str, int], x_modality: str) -> int:
    """Return the number of pairs that were matched and neither published nor dropped yet.

    Args:
        counters: of the node.
        x_modality: of the second camera.
    """
    # The reasons for dropping a message before it is matched begin with its stream.
    of_pairs = {
        k: n for k, n in drops(counters).items() if not k.startswith(('rgb_', f'{x_modality}_'))
    }
    return counters.get('pairs_in', 0) - counters.get('pairs_out', 0) - sum(of_pairs.values())
