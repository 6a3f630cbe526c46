"""The process of the node: its command line, its signals and the thread that runs callbacks.

The process ends with status 0 after SIGINT or SIGTERM, also while the node starts by itself; a
transition that a service began is finished first, because it runs in the thread of the callbacks.
The process ends with 2, after one line that says why, if the node is to start by itself
(`autostart`) and a parameter or the checkpoint cannot be used, and with 1 after any other failed
start. It ends with 1, too, when inference fails again and again or its thread ends, so that a
launch file with `respawn` starts a new process.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from sartm_model.errors import SartmError
from sartm_ros.node.lifecycle_node import SartmNode
from sartm_ros.settings.fastdds import use_image_profile

SPIN_TIMEOUT_S: float | None = 1.0
"""Some builds of EventsExecutor hang at the first event if they wait without a limit, because the
end of time does not fit the clock by which they wait."""

try:
    from rclpy.experimental import EventsExecutor as Executor
except ImportError:  # Humble, and the first releases of Jazzy
    from rclpy.executors import SingleThreadedExecutor as Executor  # type: ignore[assignment]

    SPIN_TIMEOUT_S = None

REPEATS_IGNORED_S = 5.0
"""How long after the first signal further ones are ignored. Ctrl-C in a terminal sends one to every
process, and `ros2 launch` then sends another to its children."""

SIGNAL_CHECK_S = 0.2
"""Longest time until a signal is noticed that the kernel gave to another thread than the main one:
Python runs its handler when the main thread next runs."""

USAGE = """\
usage: sartm_node [-h] [--version] [--ros-args ...]

Starts the lifecycle node 'sartm', which segments pairs of RGB and thermal images, or of RGB and
another sensor's (x_modality).

examples:
  sartm_node
  sartm_node --ros-args --params-file sartm.yaml
  sartm_node --ros-args -p checkpoint:=model.safetensors -p rgb_topic:=/camera/image
  sartm_node --ros-args -p checkpoint:=rgbd.safetensors -p x_modality:=depth -p x_topic:=/depth
  sartm_node --ros-args -r __ns:=/front --log-level debug

config/sartm.yaml lists every parameter at its default. A running node describes them:
  ros2 param describe /sartm NAME

Exit status: 0 after SIGINT or SIGTERM; 2 if a parameter or the checkpoint cannot be used at the
start; 1 after another failed start, and if inference fails again and again.

OMP_WAIT_POLICY is set to PASSIVE unless it is set already, and FASTRTPS_DEFAULT_PROFILES_FILE to
config/fastdds_images.xml, which gives images enough shared memory. Set it too for the cameras.
"""


def main(args: list[str] | None = None, make_node: Callable[[], SartmNode] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM and return the exit status: see the module's text.

    Args:
        args: the command line without the program's name; by default that of the process.
        make_node: creates the node; by default the class `SartmNode`.
    """
    words = sys.argv[1:] if args is None else args
    if not {'-h', '--help'}.isdisjoint(words):
        print(USAGE, end='')
        return 0
    if '--version' in words:
        print(f'sartm_node {metadata.version("sartm_ros")}')
        return 0
    # torch reads this when it is imported, which the node does when it is configured. By default
    # its threads spin while one of them waits for a processor that another process uses: beside
    # one busy process on two cores a frame then takes ten times as long. On an idle machine
    # spinning saves a quarter of the time, so a value that the user has set is kept.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    use_image_profile()
    stop = _StopSignal()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.on_signal)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has no common class for wrong --ros-args
        print(f'sartm_node: ROS does not start: {type(error).__name__} {error}', file=sys.stderr)
        return 2
    try:
        return _run(make_node or SartmNode, stop)
    except SartmError as error:
        print(f'sartm_node: {error}', file=sys.stderr)
        return 2
    finally:
        # DDS ends with the node, which is in reference cycles. If they are left until Python itself
        # ends, the threads of DDS go on meanwhile; a process has crashed then.
        gc.collect()
        rclpy.try_shutdown()
        # At its end Python would put the default handlers in the place of ours.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class _Interrupted(BaseException):
    """A signal has come while the node starts."""


class _StopSignal:
    """Takes note of the first signal; a later one kills the process, which hangs then.

    Attributes:
        requested: set by the first signal.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._first_s = 0.0
        self._interrupts = False

    def on_signal(self, number: int, frame: Any) -> None:
        """Handle a signal; Python calls this in the main thread."""
        if not self.requested.is_set():
            self._first_s = time.monotonic()
            self.requested.set()
            if self._interrupts:
                raise _Interrupted
        elif time.monotonic() - self._first_s > REPEATS_IGNORED_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def interrupt(self, work: Callable[[], int]) -> int:
        """Run `work` and return its status; a signal interrupts it, and the status is then 0."""
        status = 0
        try:
            self._interrupts = True
            try:
                if not self.requested.is_set():
                    status = work()
            finally:
                self._interrupts = False
        except _Interrupted:
            # A thread that was about to start may wait for ever, and Python for it at the end.
            last = threading.Timer(REPEATS_IGNORED_S, os._exit, (0,))
            last.daemon = True
            last.start()
        return 0 if self.requested.is_set() else status


def _run(make_node: Callable[[], SartmNode], stop: _StopSignal) -> int:
    """Create a node, run it until a signal or a fatal error, destroy it; return the exit status.

    The node's callbacks run in a second thread, so that services and diagnostics answer while the
    node starts by itself. The main thread starts it and then only waits, because Python runs signal
    handlers there and a wait in the executor would delay them.
    """
    node = make_node()
    executor = Executor()
    executor.add_node(node)
    ended = threading.Event()

    def run_callbacks() -> None:
        while not ended.is_set():
            try:
                executor.spin_once(SPIN_TIMEOUT_S)
            except Exception:
                node.get_logger().error(f'a callback failed:\n{traceback.format_exc()}')

    thread = threading.Thread(target=run_callbacks, name='executor')
    thread.start()
    try:
        status = stop.interrupt(node.autostart)
        if status == 0:
            while not (stop.requested.wait(SIGNAL_CHECK_S) or node.fatal_error):
                pass
            status = 1 if node.fatal_error else 0
    finally:
        ended.set()
        executor.create_task(lambda: None)  # `wake` alone does not make spin_once return
        while thread.is_alive():
            thread.join(SIGNAL_CHECK_S)
        executor.shutdown()
    node.close()
    node.destroy_node()
    return status


if __name__ == '__main__':
    sys.exit(main())
