"""The processes of `ros_path`: cameras, the node without its network, and a plain node.

`python -m benchmarks.ros_path_nodes cameras|sartm|plain SETTINGS`, SETTINGS a `Settings` as JSON.
SIGINT ends the nodes, which then write a `Record`.
"""

from __future__ import annotations

import json
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sartm_ros.messages.cdr import write_image
from sartm_ros.messages.images import stamp_of
from sartm_ros.node import lifecycle_node
from sartm_ros.node.lifecycle_node import SartmNode
from sartm_ros.node.main import main as node_main

RGB_TOPIC, THERMAL_TOPIC, LABELS_TOPIC = '/camera/color/image_raw', '/thermal/image_raw', '/labels'
SCENES = 8
"""Number of different images that the cameras repeat."""


@dataclass(frozen=True)
class Settings:
    """The settings of one round.

    Attributes:
        record: the file to which a node writes its record, or the cameras their stamps.
        width, height: of the images.
        rate_hz: of the cameras.
        pairs: number of pairs counted.
        network_s: how long the network in the nodes sleeps.
        checkpoint: runs in the node in place of a network that sleeps; '' for none.
    """

    record: str
    width: int = 640
    height: int = 480
    rate_hz: float = 30.0
    pairs: int = 100
    network_s: float = 0.0
    checkpoint: str = ''


@dataclass
class Record:
    """Monotonic times in ns in one process, by the pair's stamp.

    Attributes:
        arrived: the callback of the pair's later message was entered.
        offered: that callback returned; in the plain node only where it served no pair.
        published: the call that published the labels returned.
    """

    arrived: dict[int, int] = field(default_factory=dict)
    offered: dict[int, int] = field(default_factory=dict)
    published: dict[int, int] = field(default_factory=dict)

    def around(self, callback: Callable[[Any], None], msg: Any) -> None:
        """Call `callback` with the message and record the times before and after."""
        stamp = stamp_of(msg.header)
        self.arrived[stamp] = time.monotonic_ns()  # overwritten by the later message
        callback(msg)
        self.offered[stamp] = time.monotonic_ns()

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a file of `write`."""
        fields = json.loads(path.read_text())
        return cls(**{n: {int(k): v for k, v in times.items()} for n, times in fields.items()})

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(json.dumps(asdict(self)))


class NoNetwork:
    """Replaces `Predictor`: returns prepared labels after a sleep."""

    modalities = ('rgb', 'thermal')

    def __init__(self, settings: Settings) -> None:
        import torch

        from sartm_model.inference.prediction import Prediction
        from sartm_model.labels import MFNET
        from sartm_model.modalities.thermal_settings import ThermalSettings

        self.label_space = MFNET
        self.device, self.precision = torch.device('cpu'), 'fp32'
        self.thermal_settings, self.homography = ThermalSettings(), None
        self._network_s = settings.network_s
        self._prediction = Prediction(random_labels(settings))

    def check(self, *_: Any) -> None:
        """Accept any settings."""

    def predict(self, *_: Any, **__: Any) -> Any:
        """Sleep and return the labels."""
        time.sleep(self._network_s)
        return self._prediction


class TimedNode(SartmNode):
    """The node, which records when messages arrive and labels are published.

    It has `NoNetwork` unless the settings name a checkpoint.
    """

    def __init__(self, settings: Settings, record: Record) -> None:
        self._round, self._record = settings, record
        super().__init__()

    def on_configure(self, state: Any) -> Any:
        """Configure, and record the times of `publish`."""
        if not self._round.checkpoint:
            lifecycle_node.load_predictor = lambda *_: NoNetwork(self._round)
        result = super().on_configure(state)
        if self._result_publishers is not None:
            publish, published = self._result_publishers.publish, self._record.published

            def timed(name: str, image: np.ndarray, header: Any) -> None:
                publish(name, image, header)
                if name == 'labels':
                    published[stamp_of(header)] = time.monotonic_ns()

            self._result_publishers.publish = timed  # type: ignore[method-assign]
        return result

    def _on_image(self, which: str, msg: Any) -> None:
        super_on_image = super()._on_image
        self._record.around(lambda m: super_on_image(which, m), msg)


class PlainNode(Node):
    """A straightforward node: two callbacks, copied images, and the network in a callback.

    `message_filters` makes the pairs if it is installed. Otherwise each message is paired with the
    nearest of the last ten of the other topic, within 50 ms.
    """

    def __init__(self, settings: Settings, record: Record) -> None:
        super().__init__('plain')
        self._settings, self._record = settings, record
        self._labels = random_labels(settings)
        self._waiting: dict[str, list[Any]] = {'rgb': [], 'thermal': []}
        self._publisher = self.create_publisher(Image, LABELS_TOPIC, 10)
        try:
            from message_filters import ApproximateTimeSynchronizer, Subscriber
        except ImportError:
            for which, topic in (('rgb', RGB_TOPIC), ('thermal', THERMAL_TOPIC)):
                self.create_subscription(
                    Image, topic, self._callback(which), qos_profile_sensor_data
                )
            return
        topics = (RGB_TOPIC, THERMAL_TOPIC)
        subscribers = [
            Subscriber(self, Image, topic, qos_profile=qos_profile_sensor_data) for topic in topics
        ]
        for subscriber in subscribers:  # this callback is called before the synchronizer's
            subscriber.registerCallback(lambda msg: record.around(lambda _: None, msg))
        self._synchronizer = ApproximateTimeSynchronizer(subscribers, 10, 0.05)
        self._synchronizer.registerCallback(self._infer)

    def _callback(self, which: str) -> Callable[[Any], None]:
        return lambda msg: self._record.around(lambda m: self._on_image(which, m), msg)

    def _on_image(self, which: str, msg: Any) -> None:
        others = self._waiting['thermal' if which == 'rgb' else 'rgb']
        stamp = stamp_of(msg.header)
        nearest = min(others, key=lambda m: abs(stamp_of(m.header) - stamp), default=None)
        if nearest is None or abs(stamp_of(nearest.header) - stamp) > 50_000_000:
            self._waiting[which] = [*self._waiting[which][-9:], msg]
            return
        others.remove(nearest)
        self._infer(*((msg, nearest) if which == 'rgb' else (nearest, msg)))

    def _infer(self, rgb_msg: Any, thermal_msg: Any) -> None:
        import cv2

        shape = rgb_msg.height, rgb_msg.width
        bgr = np.array(rgb_msg.data, dtype=np.uint8).reshape(*shape, 3)
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        thermal = np.frombuffer(bytes(thermal_msg.data), np.uint16).reshape(shape)
        grey = np.empty(shape, np.uint8)
        cv2.normalize(thermal, grey, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        labels = self._network(rgb, grey)
        msg = Image(header=rgb_msg.header, height=shape[0], width=shape[1], encoding='mono8')
        msg.step = shape[1]
        msg.data = labels.tobytes()
        self._publisher.publish(msg)
        self._record.published[stamp_of(rgb_msg.header)] = time.monotonic_ns()

    def _network(self, rgb: np.ndarray, thermal: np.ndarray) -> np.ndarray:
        time.sleep(self._settings.network_s)
        return self._labels


def random_labels(settings: Settings) -> np.ndarray:
    """Return random ids uint8 `[H, W]` of nine classes."""
    size = (settings.height, settings.width)
    return np.random.default_rng(0).integers(0, 9, size, np.uint8)


def cameras(settings: Settings) -> None:
    """Publish bgr8 and mono16 images until a line is read from stdin, then `pairs` pairs more.

    Both images of a pair have the same stamp: the monotonic time just before the first is
    published. The stamps of the pairs after the line are written as a list. A delay of this process
    is not made up for, because no camera sends two frames at once.
    """
    rclpy.init()
    node = rclpy.create_node('cameras')
    publishers = [
        node.create_publisher(Image, topic, qos_profile_sensor_data)
        for topic in (RGB_TOPIC, THERMAL_TOPIC)
    ]
    scenes = [_scene(settings, index) for index in range(SCENES)]
    header = Header(frame_id='camera')
    stamps: list[int] = []
    index, counting, period_s = 0, False, 1 / settings.rate_hz
    due_s = time.monotonic()
    while len(stamps) < settings.pairs:
        counting = counting or bool(select.select([sys.stdin], [], [], 0)[0])
        stamp = time.monotonic_ns()
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        rgb, thermal = scenes[index % SCENES]
        publishers[0].publish(write_image(rgb, 'bgr8', header))
        publishers[1].publish(write_image(thermal, 'mono16', header))
        if counting:
            stamps.append(stamp)
        index += 1
        due_s = max(due_s + period_s, time.monotonic() + 0.5 * period_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
    Path(settings.record).write_text(json.dumps(stamps))
    sys.stdin.readline()
    sys.stdin.readline()  # the publishers live until the listener has received everything
    node.destroy_node()
    rclpy.shutdown()


def _scene(settings: Settings, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return BGR and thermal images of noise, which depend on the index."""
    chance = np.random.default_rng(index)
    size = (settings.height, settings.width)
    bgr = chance.integers(0, 256, (*size, 3), np.uint8)
    return bgr, chance.integers(7000, 9000, size, np.uint16)


def sartm(settings: Settings) -> int:
    """Run the node, without its network unless a checkpoint is named."""
    record = Record()
    arguments = ['--ros-args', '-r', f'/sartm/labels:={LABELS_TOPIC}']
    if settings.checkpoint:
        size = (f'warm_up.width:={settings.width}', f'warm_up.height:={settings.height}')
        for parameter in (f'checkpoint:={settings.checkpoint}', *size):
            arguments += ['-p', parameter]
    status = node_main(arguments, lambda: TimedNode(settings, record))
    record.write(Path(settings.record))
    return status


def plain(settings: Settings) -> None:
    """Run the plain node until SIGINT."""
    record = Record()
    interrupted = threading.Event()
    # KeyboardInterrupt may be raised where it is swallowed, and the process would never end.
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    executor.add_node(PlainNode(settings, record))
    while not interrupted.is_set():
        executor.spin_once(0.1)
    record.write(Path(settings.record))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process that the command line names; return the exit status."""
    role, text = sys.argv[1:] if argv is None else argv
    roles: dict[str, Callable[[Settings], int | None]] = {
        'cameras': cameras,
        'sartm': sartm,
        'plain': plain,
    }
    return roles[role](Settings(**json.loads(text))) or 0


if __name__ == '__main__':
    sys.exit(main())
