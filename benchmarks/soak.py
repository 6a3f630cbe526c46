"""Runs the node for a long time: `python -m benchmarks.soak --minutes 20 --rate 30`.

Plays a generated drive to the node over DDS, as two cameras would, in a ROS domain of its own, and
prints as JSON the number of results and the node's memory. The exit status is 1 if the memory grew,
a pair failed or could not be read, nothing came out, or the node ended with another status than 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from sartm_model.data.synthetic import render_sequence
from sartm_model.errors import SartmError
from sartm_ros.demo.node_process import node_process, tail, use_own_domain

TIMEOUT_S = 120.0
MAX_GROWTH_MIB = 64.0
"""Greatest growth of the line through the node's memory, from the first quarter of the run to its
end. One image in a hundred that is never freed is 0.4 MiB a second at 30 Hz, and 330 MiB in that
part of 20 minutes; the limit allows for allocators and for the middleware's history."""

FRAMES = 60
SEED = 990_010


def main(argv: list[str] | None = None) -> int:
    """Run the node and print the summary; return the exit status."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.soak', description=__doc__)
    parser.add_argument('--minutes', type=float, default=20.0, help='default: %(default)s')
    parser.add_argument('--rate', type=float, default=30.0, help='Hz; default: %(default)s')
    parser.add_argument('--checkpoint', metavar='F', default='demo', help='default: %(default)s')
    args = parser.parse_args(argv)
    use_own_domain()
    try:
        with tempfile.TemporaryDirectory() as folder:
            summary = soak(args.checkpoint, args.minutes * 60, args.rate, Path(folder) / 'node.log')
    except SartmError as error:
        print(f'soak: {error}', file=sys.stderr)
        return 2
    print(json.dumps(summary, indent=2))
    return 1 if summary['faults'] else 0


def soak(checkpoint: str, seconds: float, rate_hz: float, log: Path) -> dict[str, Any]:
    """Run the node and return the summary.

    Args:
        checkpoint: of the network.
        seconds: duration.
        rate_hz: rate of the cameras.
        log: receives the node's output.

    Raises:
        SartmError: the node does not start.
    """
    with node_process({'checkpoint': checkpoint}, log) as process:
        cameras = _Cameras()
        try:
            cameras.wait(lambda: process.poll() is not None, log)
            memory = _play(cameras, process.pid, seconds, rate_hz)
            counts = cameras.final_counts()
        finally:
            cameras.close()
        process.send_signal(signal.SIGINT)
        status = process.wait(TIMEOUT_S)
    growth = growth_mib(memory)
    latencies = np.percentile(cameras.latency_ms, (50, 99)) if cameras.latency_ms else (0.0, 0.0)
    drops = {name[8:]: n for name, n in counts.items() if name.startswith('dropped.') and n}
    faults = []
    if growth > MAX_GROWTH_MIB:
        faults.append(f'memory grew by {growth:.0f} MiB; at most {MAX_GROWTH_MIB:.0f} are allowed')
    if status:
        faults.append(f'the node ended with {status}')
    if not counts.get('pairs_out'):
        faults.append('nothing came out')
    faults += [f'{n} pairs {name}' for name, n in drops.items() if name in ('failed', 'bad_frame')]
    per_minute = {
        f'{minute}': memory[int(minute * 60)]
        for minute in range(len(memory) // 60 + 1)
        if minute * 60 < len(memory)
    }
    return {
        'seconds': seconds,
        'pairs_sent': cameras.sent,
        'pairs_in': counts.get('pairs_in', 0),
        'pairs_out': counts.get('pairs_out', 0),
        'dropped': drops,
        'latency_median_ms': round(float(latencies[0]), 1),
        'latency_p99_ms': round(float(latencies[1]), 1),
        'memory_mib': {'minutes': per_minute, 'end': memory[-1]},
        'growth_mib': round(growth, 1),
        'faults': faults,
    }


def growth_mib(memory: list[float]) -> float:
    """Return the growth of the least-squares line through samples after their first quarter."""
    settled = np.asarray(memory[len(memory) // 4 :])
    if len(settled) < 2:
        return 0.0
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    return float(slope * (len(settled) - 1))


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process, without files and shared memory segments."""
    memory = psutil.Process(pid).memory_info()
    return round((memory.rss - memory.shared) / 2**20, 1)


def _play(cameras: _Cameras, pid: int, seconds: float, rate_hz: float) -> list[float]:
    """Send pairs at the rate; return the node's memory in MiB, once a second."""
    memory = [memory_mib(pid)]
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        cameras.send()
        if now >= len(memory):
            memory.append(memory_mib(pid))
        late = cameras.sent / rate_hz - (time.monotonic() - begun)
        time.sleep(max(late, 0.3 / rate_hz))  # no camera sends two frames at once
    memory.append(memory_mib(pid))
    return memory


class _Cameras:
    """Publishes the images of both cameras and receives the node's status and diagnostics."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_msgs.msg import String

        self.sent = 0
        self.latency_ms: list[float] = []
        self._reports: list[Any] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node('soak', context=self._context)
        sensor = qos_profile_sensor_data
        self._rgb = self._node.create_publisher(Image, '/camera/color/image_raw', sensor)
        self._thermal = self._node.create_publisher(Image, '/thermal/image_raw', sensor)
        self._node.create_subscription(
            String, '/sartm/status', self._on_status, QoSProfile(depth=99)
        )
        self._node.create_subscription(
            DiagnosticArray,
            '/diagnostics',
            lambda m: self._reports.__setitem__(slice(None), [m]),
            10,
        )
        self._frames = list(render_sequence(SEED, FRAMES))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def wait(self, ended: Any, log: Path) -> None:
        """Wait until the node has subscribed."""
        end_s = time.monotonic() + TIMEOUT_S
        while not (self._rgb.get_subscription_count() and self._thermal.get_subscription_count()):
            if ended() or time.monotonic() > end_s:
                raise SartmError(f'the node does not subscribe: {tail(log)}')
            time.sleep(0.05)

    def send(self) -> None:
        """Publish the next pair, stamped with the present time."""
        from std_msgs.msg import Header

        from sartm_ros.messages.cdr import write_image

        header = Header(stamp=self._node.get_clock().now().to_msg())
        images = self._frames[self.sent % FRAMES].images
        self._rgb.publish(write_image(images['rgb'], 'rgb8', header))
        self._thermal.publish(write_image(images['thermal'], 'mono8', header))
        self.sent += 1

    def final_counts(self) -> dict[str, int]:
        """Return the node's counters when every pair has been published or dropped."""
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            counts = self._counts()
            ended = counts.get('pairs_out', 0) + sum(
                n
                for name, n in counts.items()
                if name.startswith('dropped.')
                and not name.startswith(('dropped.rgb_', 'dropped.thermal_'))
            )
            if counts and counts['pairs_in'] == ended:
                return counts
            time.sleep(0.1)
        return self._counts()

    def close(self) -> None:
        """Shut the executor down before the context, or the process aborts."""
        import rclpy

        self._stopping.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _counts(self) -> dict[str, int]:
        values = self._reports[-1].status[0].values if self._reports else []
        return {item.key: int(item.value) for item in values if item.value.isdecimal()}

    def _on_status(self, message: Any) -> None:
        self.latency_ms.append(json.loads(message.data)['latency_ms'])

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.1)


if __name__ == '__main__':
    sys.exit(main())
