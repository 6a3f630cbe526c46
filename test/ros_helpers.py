"""The other side of the node in tests over DDS: `Peer` publishes images and receives results.

Import this after `pytest.importorskip('rclpy')`. The import sets the ROS environment of this
process, and its child processes inherit it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from processes import TIMEOUT_S, remove_orphaned_segments, wait_until
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from sartm_ros.demo.node_process import use_own_domain

RGB_TOPIC, THERMAL_TOPIC = '/camera/color/image_raw', '/thermal/image_raw'
PROBE_NS = 1_000_000
STAMPED_AFTER_COUNTS_NS = 50_000_000
"""More than what passes in the node from the counts of its diagnostics to their stamp."""

SECOND = 1_000_000_000
QUICK = 'quick_network_node.py'
"""The node with an instant network, for `running_node`."""

DROPS = (
    *('replaced', 'rate', 'bad_frame', 'failed', 'out_of_memory', 'stopped'),
    *('stall_frozen', 'stall_flat', 'stall_gap'),
)
MATCHER_DROPS = (
    *(
        f'{topic}_{reason}'
        for topic in ('rgb', 'thermal')
        for reason in (
            *('unreadable', 'no_stamp', 'duplicate', 'out_of_order', 'overflow', 'reset'),
            'stopped',
        )
    ),
    *('rgb_no_partner', 'rgb_timeout', 'rgb_partner_taken', 'rgb_late', 'thermal_unused'),
)
COUNTS = (
    *('rgb_received', 'thermal_received', 'pairs_in', 'pairs_out'),
    *('served_both', 'served_rgb', 'served_thermal'),
    *('thermal_frozen', 'thermal_flat', 'thermal_gap', 'thermal_unreadable', 'rgb_gap'),
    'nan_outputs',
    *(f'dropped.{reason}' for reason in (*DROPS, *MATCHER_DROPS)),
)

use_own_domain()


def send_until(send: Callable[[], Any], condition: Callable[[], Any], what: str) -> None:
    """Call `send` repeatedly until `condition()` is true."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, f'sent in vain for {what}'
        send()
        pause_s = time.monotonic() + 0.2
        while not condition() and time.monotonic() < pause_s:
            time.sleep(0.01)


class Peer:
    """Publishes camera images and receives the node's results, in this process.

    Args:
        domain: the ROS domain; by default that of this process.
        reliable: whether the images are published reliably, not as sensor data.
    """

    def __init__(self, domain: int | None = None, reliable: bool = False) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('peer', namespace='/test', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        profile = QoSProfile(depth=10) if reliable else qos_profile_sensor_data
        self.rgb = self.publisher(Image, RGB_TOPIC, profile)
        self.thermal = self.publisher(Image, THERMAL_TOPIC, profile)
        self.labels = self.listen(Image, '/sartm/labels', QoSProfile(depth=500))
        self._statuses = self.listen(String, '/sartm/status', QoSProfile(depth=500))
        self.diagnostics = self.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
        self._own_subscriptions = list(self.node.subscriptions)
        self._probes = 0
        self._baseline: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def change_state(self, label: str = '', number: int = 0) -> bool:
        """Request a lifecycle transition of the node, by its label or its number.

        Returns:
            Whether it succeeded.
        """
        request = ChangeState.Request()
        request.transition.label, request.transition.id = label, number
        return self.call(ChangeState, '/sartm/change_state', request).success

    def state(self) -> str:
        """Return the node's lifecycle state."""
        response = self.call(GetState, '/sartm/get_state', GetState.Request())
        return response.current_state.label

    def set_parameters(self, **values: Any) -> list[tuple[bool, str]]:
        """Set parameters of the node; `__` stands for a dot. Return (success, reason) for each."""
        parameters = [parameter(name.replace('__', '.'), value) for name, value in values.items()]
        request = SetParameters.Request(parameters=parameters)
        results = self.call(SetParameters, '/sartm/set_parameters', request).results
        return [(result.successful, result.reason) for result in results]

    def close(self) -> None:
        """Shut the executor down before the context, or the process aborts."""
        self._stopping.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        remove_orphaned_segments()

    def publisher(self, message_type: Any, topic: str, profile: Any) -> Any:
        """Return a new publisher."""
        return self.node.create_publisher(message_type, topic, profile)

    def listen(self, message_type: Any, topic: str, profile: Any) -> list[Any]:
        """Subscribe to a topic and return the list to which its messages are appended."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, profile)
        return messages

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(service_type, name)
        assert client.wait_for_service(TIMEOUT_S), f'no service {name}'
        future = client.call_async(request)
        wait_until(future.done, f'the response of {name}')
        self.node.destroy_client(client)
        return future.result()

    def unsubscribe(self, *topics: str) -> None:
        """End the subscriptions made with `listen`: those to the topics given, or all of them."""
        for subscription in list(self.node.subscriptions):
            if subscription in self._own_subscriptions:
                continue
            if not topics or subscription.topic_name in topics:
                self.node.destroy_subscription(subscription)

    def connect(self) -> None:
        """Send probes until labels of both cameras' images return; `status` counts from there.

        Discovery ends on one side before it ends on the other, and messages sent in between are
        lost. Probes are small and have stamps within the first second.
        """
        rgb, thermal = scene(0, 32, 32)

        def probe() -> int:
            self._probes += 1
            stamp = self._probes * PROBE_NS
            self.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono8', stamp))
            return stamp

        def fused(stamp: int = 0) -> bool:
            return any(s['modality'] == 'both' and s['stamp_ns'] >= stamp for s in self.statuses)

        self.labels.clear()
        self._statuses.clear()
        send_until(probe, lambda: self.labels and fused(), 'labels of a probe')
        last = probe()
        wait_until(lambda: stamp_of(self.labels[-1]) == last, 'labels of the last probe')
        wait_until(lambda: fused(last), 'the status of the last probe')
        self.labels.clear()
        self._statuses.clear()
        self.diagnostics.clear()
        now_ns = time.time_ns()
        wait_until(lambda: self._settled(now_ns), 'new diagnostics in which every probe has ended')
        self._baseline = self._status()

    def send(self, rgb: Image, thermal: Image) -> None:
        """Publish a pair of messages."""
        self.rgb.publish(rgb)
        self.thermal.publish(thermal)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """The messages of ~/status since `connect`."""
        return [json.loads(message.data) for message in list(self._statuses)]

    @property
    def newest(self) -> dict[str, Any]:
        """The last message of ~/status, or an empty dict."""
        return json.loads(self._statuses[-1].data) if self._statuses else {}

    def _settled(self, since_ns: int) -> bool:
        """Whether new diagnostics have counted out every pair that they have counted in.

        A pair is counted out after its labels arrive. Diagnostics that were on their way at the
        time `since_ns` may be from before the last pairs. Their stamp tells, unless the node's time
        is simulated; then the second ones since are new for certain.
        """
        if not self.diagnostics:
            return False
        is_new = stamp_of(self.diagnostics[-1]) > since_ns + STAMPED_AFTER_COUNTS_NS
        if not is_new and len(self.diagnostics) < 2:
            return False
        status = self._status()
        ended = status.get('pairs_out', 0) + sum(status.get(f'dropped.{r}', 0) for r in DROPS)
        return status.get('pairs_in', 0) == ended

    def _status(self) -> dict[str, Any]:
        if not self.diagnostics:
            return {'message': ''}
        (status,) = self.diagnostics[-1].status
        values: dict[str, Any] = {item.key: item.value for item in status.values}
        counts = {name: int(value) for name, value in values.items() if value.isdecimal()}
        return (
            values
            | counts
            | {'level': status.level[0], 'message': status.message, 'name': status.name}
        )

    def status(self) -> dict[str, Any]:
        """Return the newest diagnostics: `level`, `message`, values, and counts since `connect`."""
        status = self._status()
        for name in COUNTS:
            status[name] = status.get(name, 0) - self._baseline.get(name, 0)
        return status

    def wait_for_counts(self, **expected: int) -> dict[str, Any]:
        """Wait for these counts since `connect`; `__` stands for a dot. Return the diagnostics."""
        wanted = {name.replace('__', '.'): value for name, value in expected.items()}
        assert set(wanted) <= set(COUNTS)
        try:
            wait_until(lambda: wanted.items() <= self.status().items(), f'the counts {wanted}')
        except AssertionError as error:
            found = {name: count for name, count in self.status().items() if count}
            raise AssertionError(f'{error}; found {found}') from None
        return self.status()


def stamp_of(msg: Any) -> int:
    """Return a message's stamp in nanoseconds."""
    return msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec


def image(pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = 'camera') -> Image:
    """Return a message of these pixels, of the type that the encoding names."""
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.data.frombytes(pixels.tobytes())
    return message


def scene(index: int, height: int = 480, width: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """Return (RGB, thermal) of a pair, whose pixels depend on the index."""
    rgb = np.full((height, width, 3), index % 251, np.uint8)
    thermal = np.full((height, width), index % 97, np.uint8)
    thermal[:, width // 2 :] += 100  # without contrast it would be a stalled camera
    return rgb, thermal


def view(index: int, height: int, width: int) -> np.ndarray:
    """Return an RGB image of squares, which are others at every index: the view moves."""
    rows, columns = -(-height // 4), -(-width // 4)
    squares = np.random.default_rng(index).integers(0, 256, (rows, columns, 3), np.uint8)
    return squares.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def send_pair(
    peer: Peer,
    index: int,
    *,
    rate_hz: float = 30,
    height: int = 480,
    width: int = 640,
    thermal_ms: int = 0,
) -> int:
    """Publish scene `index` and return its RGB stamp, which is 1 s plus `index` intervals."""
    rgb, thermal = scene(index, height, width)
    stamp = SECOND + round(index * SECOND / rate_hz)
    peer.send(
        image(rgb, 'rgb8', stamp, f'camera_{index}'),
        image(thermal, 'mono8', stamp + thermal_ms * 1_000_000, 'thermal'),
    )
    return stamp


def send_at_rate(peer: Peer, count: int, rate_hz: float = 30) -> list[int]:
    """Publish pairs at a rate and return their RGB stamps.

    A delay of this process is not made up for: two pairs at once, which no camera sends, would be
    one too many for the node's slot.
    """
    stamps = []
    due = time.monotonic()
    for index in range(count):
        stamps.append(send_pair(peer, index, rate_hz=rate_hz, thermal_ms=2))
        due = max(due + 1 / rate_hz, time.monotonic() + 0.9 / rate_hz)
        time.sleep(max(0.0, due - time.monotonic()))
    return stamps


def parameter(name: str, value: float | str | list[float] | None) -> Parameter:
    """Return a parameter message; None deletes the parameter."""
    if value is None:
        return Parameter(name=name)
    if isinstance(value, list):
        kind = ParameterType.PARAMETER_DOUBLE_ARRAY
        return Parameter(name=name, value=ParameterValue(type=kind, double_array_value=value))
    kinds = {float: 'double', str: 'string', int: 'integer', bool: 'bool'}
    kind = kinds[type(value)]
    return Parameter(
        name=name,
        value=ParameterValue(
            type=getattr(ParameterType, f'PARAMETER_{kind.upper()}'), **{f'{kind}_value': value}
        ),
    )
