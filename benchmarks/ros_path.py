"""Measures the latency that the node adds to its network: `python -m benchmarks.ros_path`.

Cameras, node and listener are processes that communicate over DDS on this machine, with the profile
`config/fastdds_images.xml`, in a ROS domain of their own. The network does nothing: see
`ros_path_nodes`. A plain node, `ros_path_nodes.PlainNode`, is measured in the same run, alternating
with this one. In the last rounds the network takes `OVERLOAD_S`, longer than the cameras' interval.

With `--checkpoint` the node runs that network, on a GPU where there is one, and is measured alone:
`added` is then the latency from a pair's later message to its labels.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ros_path_figures import Round, overload, summary
from benchmarks.ros_path_nodes import LABELS_TOPIC, Record, Settings
from sartm_model.errors import SartmError
from sartm_ros.demo.node_process import child_process, tail, use_own_domain

OVERLOAD_S = 0.1
OVERLOAD_PAIRS = 300
ROUNDS = 2
"""Number of rounds of each node at each size; `--pairs` is the total of all rounds."""

MIN_PAIRS = 100
"""Fewest pairs of a round, if there is more than one round."""

TIMEOUT_S = 60.0
LAST_PAIR_TIMEOUT_S = 2.0
"""How long to wait for the last pair's labels; pairs without labels by then are lost."""

NODES = ('sartm', 'plain')


def run_round(node: str, settings: Settings, folder: Path) -> Round:
    """Start the processes and send the pairs of one round.

    Args:
        node: one of `NODES`.
        settings: of the round; `record` is replaced.
        folder: for the logs and the records.

    Raises:
        SartmError: a process does not start, or ends early.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_listener())
        logs = {role: folder / f'{role}.log' for role in (node, 'cameras')}
        records = {role: folder / f'{role}.json' for role in logs}
        processes = {
            role: stack.enter_context(child_process(_command(role, settings, records[role]), log))
            for role, log in logs.items()
        }

        def wait(what: str, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
            end_s = time.monotonic() + timeout_s
            while not condition():
                for role, process in processes.items():
                    if process.poll() is not None:
                        raise SartmError(f'{role} ended with {process.returncode}: {log(role)}')
                if time.monotonic() > end_s:
                    raise SartmError(f'no {what} after {timeout_s:g} s: {log(node)}')
                time.sleep(0.01)

        def log(role: str) -> str:
            return tail(logs[role])

        received: dict[int, int] = {}
        listener.received = received
        wait('labels', lambda: len(received) >= 5)  # the frame rates are known by then
        cpu_s, wall_s = _cpu_s(processes[node]), time.monotonic()
        _send_line(processes['cameras'], 'count')
        sent_s = settings.pairs / settings.rate_hz
        wait('end of the pairs', records['cameras'].exists, TIMEOUT_S + 2 * sent_s)
        sent = _read_when_complete(records['cameras'])
        cpu = (_cpu_s(processes[node]) - cpu_s) / (time.monotonic() - wall_s)
        end_s = time.monotonic() + LAST_PAIR_TIMEOUT_S + 6 * settings.network_s
        wait('end', lambda: sent[-1] in received or time.monotonic() > end_s, 2 * TIMEOUT_S)
        processes[node].send_signal(signal.SIGINT)
        if processes[node].wait(TIMEOUT_S):
            raise SartmError(f'{node} ended with {processes[node].returncode}: {log(node)}')
        _send_line(processes['cameras'], 'end')
        processes['cameras'].wait(TIMEOUT_S)
        return Round(sent, received, Record.read(records[node]), cpu, listener.repeated)


def _read_when_complete(path: Path) -> list[int]:
    """Read a JSON file that another process is writing."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return json.loads(path.read_text())
        except ValueError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.01)


def _command(role: str, settings: Settings, record: Path) -> list[str]:
    text = json.dumps(asdict(replace(settings, record=str(record))))
    return [sys.executable, '-m', 'benchmarks.ros_path_nodes', role, text]


def _send_line(process: subprocess.Popen, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f'{line}\n')


def _cpu_s(process: subprocess.Popen) -> float:
    """Return the processor time that a process has used."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


class _Listener:
    """Records when labels arrive, without deserialising them."""

    def __init__(self) -> None:
        self.received: dict[int, int] = {}
        self.repeated = 0

    def on_message(self, data: bytes) -> None:
        """Take a serialised image, in which the stamp follows four bytes of CDR header."""
        now_ns = time.monotonic_ns()
        sec, nanosec = (int.from_bytes(data[i : i + 4], sys.byteorder) for i in (4, 8))
        stamp = sec * 1_000_000_000 + nanosec
        self.repeated += stamp in self.received
        self.received.setdefault(stamp, now_ns)


@contextmanager
def _listener() -> Iterator[_Listener]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('listener', context=context)
    listener = _Listener()
    node.create_subscription(Image, LABELS_TOPIC, listener.on_message, 10, raw=True)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stopping = threading.Event()

    def spin() -> None:
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield listener
    finally:
        # The executor is shut down before the context; otherwise the process aborts.
        stopping.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def measure(
    sizes: Sequence[tuple[int, int]],
    pairs: int,
    rate_hz: float,
    overload_pairs: int,
    checkpoint: str = '',
) -> dict[str, Any]:
    """Return all figures: 'sizes' by 'WIDTHxHEIGHT' and node, and 'overload' by node.

    The overload is measured at the first size. With a checkpoint there is neither it nor the plain
    node.
    """
    nodes = NODES[:1] if checkpoint else NODES
    result: dict[str, Any] = {'rate_hz': rate_hz, 'load': os.getloadavg(), 'sizes': {}}

    def rounds_of(settings: Settings, count: int) -> dict[str, list[Round]]:
        rounds: dict[str, list[Round]] = {node: [] for node in nodes}
        for _ in range(count):
            for node in nodes:
                with tempfile.TemporaryDirectory() as folder:
                    rounds[node].append(run_round(node, settings, Path(folder)))
        return rounds

    count = ROUNDS if pairs >= ROUNDS * MIN_PAIRS else 1
    for width, height in sizes:
        settings = Settings('', width, height, rate_hz, pairs // count, checkpoint=checkpoint)
        result['sizes'][f'{width}x{height}'] = {
            node: summary(rounds) for node, rounds in rounds_of(settings, count).items()
        }
    if checkpoint:
        return {**result, 'checkpoint': checkpoint, 'overload': {}}
    width, height = sizes[0]
    settings = Settings('', width, height, rate_hz, overload_pairs, OVERLOAD_S)
    result['overload'] = {
        node: {**summary(rounds), **overload(rounds, settings)}
        for node, rounds in rounds_of(settings, 1).items()
    }
    return result


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures as lines of Markdown."""
    yield (
        '| Images | Node | Added median / p99 / max, ms | End to end median / p99 / max, ms '
        '| Pairs | Lost | One core |'
    )
    yield '|---|---|' + '---:|' * 5
    rows = [(size, figures) for size, nodes in result['sizes'].items() for figures in nodes.items()]
    rows += [('overload', figures) for figures in result['overload'].items()]
    for images, (node, figures) in rows:
        times = [
            ' / '.join(f'{value:.1f}' for value in figures[name].values()) or '-'
            for name in ('added_ms', 'end_to_end_ms')
        ]
        lost = figures['pairs'] - figures['received']
        cells = [images, node, *times, figures['pairs'], lost, f'{figures["cpu_percent"]} %']
        yield f'| {" | ".join(map(str, cells))} |'
    yield ''
    for node, figures in result['overload'].items():
        yield (
            f'Overload, {node}: added {"within" if figures["within"] else "beyond"} '
            f'{figures["limit_ms"]} ms; newer pairs sent when the node became free: '
            f'median {figures["passed_over_median"]}, max {figures["passed_over_max"]}; '
            f'pairs served although a newer one waited in the node: {figures["not_newest"]}'
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and the JSON; return the exit status."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.ros_path', description=__doc__)
    parser.add_argument(
        '--pairs', type=int, default=1800, help='of each node at each size (default: %(default)s)'
    )
    parser.add_argument('--rate', type=float, default=30.0, help='Hz (default: %(default)s)')
    parser.add_argument(
        '--sizes', type=_size, nargs='+', default=[(640, 480), (1280, 1024)], metavar='WxH'
    )
    parser.add_argument('--checkpoint', metavar='FILE', default='', help='or demo; a real network')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there too')
    args = parser.parse_args(argv)
    if args.pairs < 1 or not args.rate > 0:
        parser.error(f'--pairs is {args.pairs}, --rate {args.rate}; expected more than 0')
    use_own_domain()
    try:
        overload_pairs = min(args.pairs, OVERLOAD_PAIRS)
        result = measure(args.sizes, args.pairs, args.rate, overload_pairs, args.checkpoint)
    except SartmError as error:
        print(f'{parser.prog}: {error}', file=sys.stderr)
        return 2
    text = json.dumps(result, indent=2)
    if args.json is not None:
        args.json.write_text(text + '\n')
    print('\n'.join([*table(result), '', text]))
    return 0


def _size(text: str) -> tuple[int, int]:
    width, height = text.split('x')
    return int(width), int(height)


if __name__ == '__main__':
    sys.exit(main())
