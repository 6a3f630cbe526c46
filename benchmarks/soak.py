"""A long run of the node: `python -m benchmarks.soak --minutes 20 --rate 30`.

Plays a generated drive to the node over DDS, as two cameras would, in a ROS domain of its own, and
prints as JSON what came out and how much memory the node held. Ends with 1 where that grew or
something was lost otherwise than by a newer pair taking its place.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.data.synthetic import render_sequence
from sartm_model.errors import SartmError
from sartm_ros.demo.node_process import node_process, tail, use_own_domain

PATIENCE_S = 120.0
MAX_GROWTH_MIB = 64.0
"""Of the line through the node's memory, from the first quarter of the run to its end. One image in
a hundred that was kept would be 0.4 MiB a second at 30 Hz, and 330 MiB in that part of 20 minutes;
what is allowed is what allocators and the middleware's history still settle by."""

FRAMES = 60
SEED = 990_010


def main(argv: list[str] | None = None) -> int:
    """The command line of the soak."""
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
    """Run the node for so long; returns the summary. Raises SartmError where it does not start."""
    with node_process({'checkpoint': checkpoint}, log) as process:
        cameras = _Cameras()
        try:
            cameras.wait(lambda: process.poll() is not None, log)
            memory = _play(cameras, process.pid, seconds, rate_hz)
            counts = cameras.final_counts()
        finally:
            cameras.close()
        process.send_signal(signal.SIGINT)
        status = process.wait(PATIENCE_S)
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
    marks = {
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
        'memory_mib': {'minutes': marks, 'end': memory[-1]},
        'growth_mib': round(growth, 1),
        'faults': faults,
    }


def growth_mib(memory: list[float]) -> float:
    """Growth of the least-squares line through samples, from their first quarter to the end."""
    settled = np.asarray(memory[len(memory) // 4 :])
    if len(settled) < 2:
        return 0.0
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    return float(slope * (len(settled) - 1))


def memory_mib(pid: int) -> float:
    """Resident memory of a process, without the segments that it shares with other ones."""
    text = Path(f'/proc/{pid}/status').read_text()
    found = re.search(r'RssAnon:\s+(\d+) kB', text)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def _play(cameras: _Cameras, pid: int, seconds: float, rate_hz: float) -> list[float]:
    """Send in step with the clock; returns the node's memory of each second, MiB."""
    memory = [memory_mib(pid)]
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        cameras.send()
        if now >= len(memory):
            memory.append(memory_mib(pid))
        late = cameras.sent / rate_hz - (time.monotonic() - begun)
        time.sleep(max(late, 0.3 / rate_hz))  # two at once, which no camera sends
    memory.append(memory_mib(pid))
    return memory


class _Cameras:
    """Both cameras, and the listener to what comes of their images."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header, String

        from sartm_ros.messages.images import from_numpy

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
        self._pairs = []
        for frame in render_sequence(SEED, FRAMES):
            assert frame.rgb is not None
            assert frame.thermal is not None
            rgb = from_numpy(frame.rgb, 'rgb8', Header())
            self._pairs.append((rgb, from_numpy(frame.thermal, 'mono8', Header())))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def wait(self, ended: Any, log: Path) -> None:
        """Wait until the node listens."""
        end_s = time.monotonic() + PATIENCE_S
        while not (self._rgb.get_subscription_count() and self._thermal.get_subscription_count()):
            if ended() or time.monotonic() > end_s:
                raise SartmError(f'the node does not listen: {tail(log)}')
            time.sleep(0.05)

    def send(self) -> None:
        """The next pair, stamped with the time."""
        stamp = self._node.get_clock().now().to_msg()
        for publisher, message in zip(
            (self._rgb, self._thermal), self._pairs[self.sent % FRAMES], strict=True
        ):
            message.header.stamp = stamp
            publisher.publish(message)
        self.sent += 1

    def final_counts(self) -> dict[str, int]:
        """The node's counters once every pair has ended."""
        end_s = time.monotonic() + PATIENCE_S
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
