"""One trial of the node: start it as its own process, play a bag to it, record what it publishes.

The node is the installed `sartm_node`, reached over DDS alone, in a ROS domain of its own.
"""

from __future__ import annotations

import signal
import subprocess
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

from sartm_model.errors import SartmError
from sartm_ros.bag.player import BagPlayer
from sartm_ros.bag.reading import (
    RGB_TOPIC,
    THERMAL_TOPIC,
    RawMessage,
    decode,
    open_writer,
    read_raw,
    topics,
)
from sartm_ros.demo.node_process import enter_own_domain, node_process, tail
from sartm_ros.messages.images import stamp_ns

LABELS = '/sartm/labels'
OVERLAY = '/sartm/overlay'
LABEL_INFO = '/sartm/label_info'
DIAGNOSTICS = '/diagnostics'
PATIENCE_S = 120.0  # for what may take long on a slow machine: loading torch, the last frames
STOP_S = 30.0
POLL_S = 0.02


@dataclass
class Recording:
    """What a trial gave, besides the recorded bag.

    Attributes:
        published_s: of each pass through the bag, the monotonic time at which each (topic, header
            stamp in ns) was published.
        received_s: likewise that at which the labels of each header stamp came back.
        overlays: number of overlays that came back.
        counters: the node's own, from its last diagnostics.
        exit_status: of the node, after SIGINT.
    """

    published_s: list[dict[tuple[str, int], float]] = field(default_factory=list)
    received_s: list[dict[int, float]] = field(default_factory=list)
    overlays: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    exit_status: int | None = None


def run_trial(
    bag: Path,
    out: Path,
    *,
    checkpoint: str,
    height: int,
    width: int,
    log: Path,
    passes: int = 1,
) -> Recording:
    """Play `bag` at its recorded rate to a node and record its outputs as the bag `out`.

    Args:
        bag: with the node's default topics.
        out: a new bag: labels, overlay, label_info and diagnostics.
        checkpoint: the node's parameter.
        height, width: size of the RGB images, for the node's warm-up.
        log: receives what the node prints.
        passes: how often the bag is played; its stamps and the clock jump back between two.

    Raises SartmError where the node is not installed, does not become active or dies; the last
    lines of its log are part of the text.
    """
    enter_own_domain()
    arguments = {
        'use_sim_time': 'true',
        'checkpoint': checkpoint,
        'warm_up.height': height,
        'warm_up.width': width,
    }
    context = Context()
    context.init()
    try:
        with (
            node_process(arguments, log) as process,
            open_writer(out) as write,
            _recorder(context, write) as recorder,
        ):
            recorder.play(bag, process, log, passes)
            recording = recorder.recording
            process.send_signal(signal.SIGINT)
            recording.exit_status = process.wait(STOP_S)
        return recording
    except subprocess.TimeoutExpired:
        raise SartmError(f'the node went on {STOP_S:g} s after SIGINT; see {log}') from None
    finally:
        context.try_shutdown()


@contextmanager
def _recorder(context: Context, write: Callable[[RawMessage], None]) -> Iterator[_Recorder]:
    node = Node('recorder', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    recorder = _Recorder(node, write)
    thread.start()
    try:
        yield recorder
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()


class _Recorder:
    """Subscribes to what the node publishes, plays the bag to it and waits for the last output."""

    def __init__(self, node: Node, write: Callable[[RawMessage], None]) -> None:
        self.recording = Recording()
        self._node = node
        self._write = write
        self._reports = 0
        self._get_state = node.create_client(GetState, '/sartm/get_state')
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._outputs = [
            self._subscribe(Image, LABELS, QoSProfile(depth=10)),
            self._subscribe(Image, OVERLAY, QoSProfile(depth=10)),
            self._subscribe(String, LABEL_INFO, latched),
            self._subscribe(DiagnosticArray, DIAGNOSTICS, QoSProfile(depth=10)),
        ]

    def play(self, bag: Path, process: subprocess.Popen, log: Path, passes: int) -> None:
        """Wait until the node is ready, play the whole bag and wait for what is still to come."""
        present = topics(bag)
        inputs = {topic: present[topic].type for topic in (RGB_TOPIC, THERMAL_TOPIC)}
        player = BagPlayer(self._node, inputs)

        def wait_for(what: str, holds: Callable[[], bool]) -> None:
            end_s = time.monotonic() + PATIENCE_S
            while not holds():
                status = process.poll()
                if status is not None:
                    raise SartmError(f'the node ended with status {status}: {tail(log)}')
                if time.monotonic() > end_s:
                    raise SartmError(f'after {PATIENCE_S:g} s {what}: {tail(log)}')
                time.sleep(POLL_S)

        wait_for('the node is not active', self._is_active())
        publishers = player.publishers.values()
        wait_for(
            'not all topics are connected',
            lambda: (
                all(publisher.get_subscription_count() for publisher in publishers)
                and all(output.get_publisher_count() for output in self._outputs)
            ),
        )

        # The node learns of us in its own time; a report made after we know of it is late enough.
        seen = self._reports
        wait_for('the node reports nothing', lambda: self._reports > seen)

        progress = tqdm(total=passes * sum(present[t].messages for t in inputs), disable=None)

        def note(message: RawMessage, now_s: float) -> None:
            key = (message.topic, stamp_ns(decode(message).header))
            self.recording.published_s[-1][key] = now_s
            progress.update()

        for _ in range(passes):
            self.recording.received_s.append({})
            self.recording.published_s.append({})
            player.play(read_raw(bag, list(inputs)), on_publish=note)
        progress.close()
        wait_for('the node has not finished', self._is_settled())

    def _subscribe(self, kind: Any, topic: str, qos: QoSProfile) -> Any:
        type_name = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'

        def record(data: bytes) -> None:
            now_s = time.monotonic()
            raw = RawMessage(topic, type_name, time.time_ns(), data)
            self._write(raw)
            self._note(topic, decode(raw), now_s)

        return self._node.create_subscription(kind, topic, record, qos, raw=True)

    def _note(self, topic: str, message: Any, now_s: float) -> None:
        if topic == LABELS:
            stamp = stamp_ns(message.header)
            passes = zip(self.recording.published_s, self.recording.received_s, strict=False)
            # Of the last pass that has published it by now.
            received = [there for sent, there in passes if (RGB_TOPIC, stamp) in sent]
            if received:
                received[-1][stamp] = now_s
        elif topic == OVERLAY:
            self.recording.overlays += 1
        elif topic == DIAGNOSTICS:
            values = {v.key: v.value for status in message.status for v in status.values}
            self.recording.counters = {
                k: int(v) for k, v in values.items() if v.lstrip('-').isdigit()
            }
            self._reports += 1

    def _is_active(self) -> Callable[[], bool]:
        """Asks the node for its lifecycle state, again where an answer gets lost."""
        asked: Any = None
        asked_s = 0.0

        def holds() -> bool:
            nonlocal asked, asked_s
            if asked is not None and asked.done():
                state = asked.result().current_state.id
                asked = None
                return bool(state == State.PRIMARY_STATE_ACTIVE)
            if self._get_state.service_is_ready() and (
                asked is None or time.monotonic() - asked_s > 1.0
            ):
                asked, asked_s = self._get_state.call_async(GetState.Request()), time.monotonic()
            return False

        return holds

    def _is_settled(self) -> Callable[[], bool]:
        """Whether two reports of the node in a row, made since now, say that no pair is left."""
        seen = self._reports
        before: dict[str, int] = {}

        def holds() -> bool:
            nonlocal seen, before
            if self._reports == seen:
                return False
            seen, counters = self._reports, self.recording.counters
            settled = counters == before and all_accounted(counters)
            before = counters
            return settled

        return holds


def all_accounted(counters: dict[str, int]) -> bool:
    """Whether each pair that was made has been published or dropped."""
    lost = sum(pair_drops(counters).values())
    return counters.get('pairs_in', 0) == counters.get('pairs_out', 0) + lost


def drops(counters: dict[str, int]) -> dict[str, int]:
    """Dropped messages and pairs by reason."""
    prefix = 'dropped.'
    return {k.removeprefix(prefix): n for k, n in counters.items() if k.startswith(prefix) and n}


def pair_drops(counters: dict[str, int]) -> dict[str, int]:
    """Dropped pairs by reason; the other drops are of messages that found no partner."""
    return {k: n for k, n in drops(counters).items() if not k.startswith(('rgb_', 'thermal_'))}
