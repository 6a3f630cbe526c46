"""Real processes on a ROS domain of their own, for the tests that go over DDS.

Import it after `pytest.importorskip('rclpy')`. Importing sets this process's ROS environment; its
children inherit it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from sartm_model.config import ModelConfig
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_ros.messages.images import from_numpy

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 30.0
"""For a condition that comes true within seconds, on a machine that does other things too."""

PROBE_NS = 1_000_000
SECOND = 1_000_000_000
QUICK = 'quick_network_node.py'
"""The node with an instant network, for `running_node`."""

DROPS = (
    *('replaced', 'bad_frame', 'failed', 'out_of_memory', 'stopped'),
    *('stall_frozen', 'stall_flat', 'stall_gap'),
)
MATCHER_DROPS = (
    *(
        f'{topic}_{reason}'
        for topic in ('rgb', 'thermal')
        for reason in (
            *('unreadable', 'no_stamp', 'duplicate', 'out_of_order', 'overflow', 'reset'),
        )
    ),
    *('rgb_no_partner', 'rgb_timeout', 'rgb_partner_taken', 'rgb_late', 'thermal_unused'),
)
COUNTS = (
    *('rgb_received', 'thermal_received', 'pairs_in', 'pairs_out'),
    *('served_both', 'served_rgb', 'served_thermal'),
    *('thermal_frozen', 'thermal_flat', 'thermal_gap', 'rgb_gap', 'nan_outputs'),
    *(f'dropped.{reason}' for reason in (*DROPS, *MATCHER_DROPS)),
)

# Up to 101 the ports of a domain stay clear of those that the system hands out.
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(ROOT / 'config' / 'fastdds_images.xml')


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait until `condition()` is true and return it; fail with `what` was waited for."""
    end_s = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end_s, f'waited {timeout_s:.0f} s in vain for {what}'
        time.sleep(0.01)


def send_until(send: Callable[[], Any], condition: Callable[[], Any], what: str) -> None:
    """Call `send` again and again until `condition()` is true."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, f'sent in vain for {what}'
        send()
        pause_s = time.monotonic() + 0.2
        while not condition() and time.monotonic() < pause_s:
            time.sleep(0.01)


def child_environment() -> dict[str, str]:
    """Return the environment for a Python process that imports this checkout and uses ROS."""
    environment = dict(os.environ)
    # The start-up hook of the ROS wheels marks the environment of the process that it prepared, and
    # would not prepare a child process with that mark.
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    environment.pop('OMP_WAIT_POLICY', None)
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get('PYTHONPATH')])]
    )
    environment['PYTHONUNBUFFERED'] = '1'
    return environment


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open('wb') as file:
            self._child = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=child_environment(), cwd=ROOT
            )

    @property
    def resident_mib(self) -> float:
        """Its resident memory as the system says."""
        status = Path(f'/proc/{self._child.pid}/status').read_text().splitlines()
        (line,) = [line for line in status if line.startswith('VmRSS')]
        return int(line.split()[1]) / 1024

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors='replace')

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        return self._child.wait(TIMEOUT_S)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self._child.send_signal(number)
        return self.wait()

    def wait_for_output(self, text: str) -> None:
        """Wait until it has written `text`; fails at once if it ends before."""

        def written() -> bool:
            ended = self._child.poll() is not None
            if text in self.output:
                return True
            assert not ended, f'ended before it wrote {text!r}:\n{self.output}'
            return False

        wait_until(written, f'{text!r} in the output')

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


@contextmanager
def running_node(
    tmp_path: Path,
    parameters: Mapping[str, Any],
    script: str | None = None,
    namespace: str = '/',
) -> Iterator[Process]:
    """The node as a process of its own; `script` in place of its module."""
    program = [str(Path(__file__).parent / script)] if script else ['-m', 'sartm_ros.node.main']
    settings = [f'{name}:={value}' for name, value in parameters.items()]
    words = [word for setting in settings for word in ('-p', setting)]
    words += ['-r', f'__ns:={namespace}']
    process = Process([sys.executable, *program, '--ros-args', *words], tmp_path / 'node.log')
    try:
        yield process
    finally:
        process.end()


class Peer:
    """The other side: publishes camera images and listens, in this process."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('peer', namespace='/test', context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.rgb = self.publisher(Image, '/camera/color/image_raw', qos_profile_sensor_data)
        self.thermal = self.publisher(Image, '/thermal/image_raw', qos_profile_sensor_data)
        self.labels = self.listen(Image, '/sartm/labels', QoSProfile(depth=500))
        self._statuses = self.listen(String, '/sartm/status', QoSProfile(depth=500))
        self.diagnostics = self.listen(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
        self._probes = 0
        self._baseline: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def change_state(self, label: str) -> bool:
        """Ask the node for a transition of its lifecycle; returns whether it was made."""
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, '/sartm/change_state', request).success

    def state(self) -> str:
        """The state of the node's lifecycle."""
        answer = self.call(GetState, '/sartm/get_state', GetState.Request())
        return answer.current_state.label

    def close(self) -> None:
        """Shut the executor down before the context, or the process aborts."""
        self._stopping.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def publisher(self, message_type: Any, topic: str, profile: Any) -> Any:
        """A publisher of this side's node."""
        return self.node.create_publisher(message_type, topic, profile)

    def listen(self, message_type: Any, topic: str, profile: Any) -> list[Any]:
        """A list that fills with the messages of a topic."""
        messages: list[Any] = []
        self.node.create_subscription(message_type, topic, messages.append, profile)
        return messages

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and wait for its answer."""
        client = self.node.create_client(service_type, name)
        assert client.wait_for_service(TIMEOUT_S), f'no service {name}'
        future = client.call_async(request)
        wait_until(future.done, f'the answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def connect(self) -> None:
        """Probe until images of both cameras arrive and labels come back; counts start from there.

        Discovery is over on one side before it is on the other, and what is sent in between is
        lost. Probes are small and stamped within the first second.
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
        wait_until(self._settled, 'diagnostics in which every probe has ended')
        self._baseline = self._status()

    def send(self, rgb: Image, thermal: Image) -> None:
        """Publish a pair."""
        self.rgb.publish(rgb)
        self.thermal.publish(thermal)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """What has come on ~/status."""
        return [json.loads(message.data) for message in list(self._statuses)]

    @property
    def newest(self) -> dict[str, Any]:
        """What has come last on ~/status."""
        return json.loads(self._statuses[-1].data) if self._statuses else {}

    def _settled(self) -> bool:
        """A pair is counted out just after its labels went out: a report may come in between."""
        status = self._status()
        ended = status.get('pairs_out', 0) + sum(status.get(f'dropped.{r}', 0) for r in DROPS)
        return bool(self.diagnostics) and status.get('pairs_in', 0) == ended

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
        """The newest diagnostics: `level`, `message`, the values; counts since `connect`."""
        status = self._status()
        for name in COUNTS:
            status[name] = status.get(name, 0) - self._baseline.get(name, 0)
        return status

    def wait_for_counts(self, **expected: int) -> dict[str, Any]:
        """Wait until the diagnostics have these counts since `connect`; `__` stands for a dot."""
        wanted = {name.replace('__', '.'): value for name, value in expected.items()}
        assert set(wanted) <= set(COUNTS)
        try:
            wait_until(lambda: wanted.items() <= self.status().items(), f'the counts {wanted}')
        except AssertionError as error:
            found = {name: count for name, count in self.status().items() if count}
            raise AssertionError(f'{error}; found {found}') from None
        return self.status()


def stamp_of(msg: Any) -> int:
    """A message's stamp in nanoseconds."""
    return msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec


def image(pixels: np.ndarray, encoding: str, stamp_ns: int, frame_id: str = 'camera') -> Image:
    """A message of uint8 pixels."""
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return from_numpy(pixels, encoding, header)


def scene(index: int, height: int = 480, width: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """A pair whose every pixel tells its index, thermal modulo 100: (RGB, thermal)."""
    rgb = np.full((height, width, 3), index % 251, np.uint8)
    thermal = np.full((height, width), index % 97, np.uint8)
    thermal[:, width // 2 :] += 100  # without contrast it would be a flat frame
    return rgb, thermal


def send_pair(
    peer: Peer,
    index: int,
    *,
    rate_hz: float = 30,
    height: int = 480,
    width: int = 640,
    thermal_ms: int = 0,
) -> int:
    """Publish scene `index`; returns the RGB stamp, one second plus so many intervals."""
    rgb, thermal = scene(index, height, width)
    stamp = SECOND + round(index * SECOND / rate_hz)
    peer.send(
        image(rgb, 'rgb8', stamp, f'camera_{index}'),
        image(thermal, 'mono8', stamp + thermal_ms * 1_000_000, 'thermal'),
    )
    return stamp


def send_at_rate(peer: Peer, count: int, rate_hz: float = 30) -> list[int]:
    """Publish pairs in step with the clock; returns their RGB stamps.

    What this process is late by is not made up for: two pairs at once, which no camera sends, would
    be one too many for the slot.
    """
    stamps = []
    due = time.monotonic()
    for index in range(count):
        stamps.append(send_pair(peer, index, rate_hz=rate_hz, thermal_ms=2))
        due = max(due + 1 / rate_hz, time.monotonic() + 0.9 / rate_hz)
        time.sleep(max(0.0, due - time.monotonic()))
    return stamps


def parameter(name: str, value: float | str | list[float]) -> Parameter:
    """A parameter message."""
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


def random_checkpoint(folder: Path, space: LabelSpace = MFNET) -> Path:
    """A real checkpoint, whose weights are random."""
    path = folder / f'random_{space.name}.safetensors'
    torch.manual_seed(0)
    checkpoints.save(path, Sartm(ModelConfig(), len(space)), space, {'about': 'a test'})
    return path
