"""The lifecycle node `sartm`: two image topics in, labels out. Wiring only.

Messages arrive in the executor's thread, which never waits for the network: see `pipeline`.
torch is imported when the node is configured.

The process ends with 0 after SIGINT or SIGTERM; with 2, after one line that says why, where
`autostart` meets settings or a checkpoint that cannot be used; with 1 after any other failed start.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool

from sartm_model.errors import SartmError
from sartm_ros.node import memory
from sartm_ros.node import parameters as ros_parameters
from sartm_ros.node.diagnostics import Diagnostics
from sartm_ros.node.frame_path import Pipeline, make_matcher, thermal_range
from sartm_ros.node.health import ERROR, UNREADABLE, Health
from sartm_ros.node.parameters import Parameters
from sartm_ros.node.publishers import Outputs
from sartm_ros.node.subscriptions import Inputs, topic_names

SPIN_S: float | None = 1.0
"""Without a limit some builds of EventsExecutor hang at the first event: the end of all time, until
which they wait, does not fit the clock they wait by."""

try:
    from rclpy.experimental import EventsExecutor as Executor
except ImportError:  # Humble, and the first releases of Jazzy
    from rclpy.executors import SingleThreadedExecutor as Executor  # type: ignore[assignment]

    SPIN_S = None

REPORT_PERIOD_S = 1.0


class SartmNode(LifecycleNode):
    """Publishes `~/labels`, `~/overlay` and `~/confidence`, raw and compressed, `~/status`,
    `~/latency`, `~/label_info` and `/diagnostics`; serves `~/set_enabled`.

    Raises:
        SartmError: a parameter given at the start has the wrong type or is out of range.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('sartm', **kwargs)
        ros_parameters.declare(self)
        self._settings = Parameters()
        self._health = Health()
        self._predictor: Any = None  # set while configured
        self._pipeline: Pipeline | None = None  # set while active and enabled
        self._outputs: Outputs | None = None  # set while configured
        self._inputs: Inputs | None = None  # set while active
        self._deadline_timer: Any = None
        self._armed_ns: int | None = None
        self._refused = ''  # why the last transition failed
        self._exit_status = 0
        # Waiting and reporting go by the wall, also where stamps are a bag's.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(self)
        self._report_timer = self.create_timer(REPORT_PERIOD_S, self._report, clock=self._steady)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    # Lifecycle ------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load and warm up the network, create the publishers."""
        self._refused = ''
        refusal = None
        try:
            self._settings = ros_parameters.read(self)
            topic_names(self, self._settings)
            make_matcher(self._settings)
            self._health = Health()
            self._predictor = self._load()
            self._outputs = Outputs(self)
            memory.settle()
        except Exception as error:
            refusal = self._refuse('configured', error)
        if refusal is not None:
            self._release()  # only here: the error's traceback held what had been loaded
            return refusal
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the inference thread. An inactive node costs no bandwidth."""
        super().on_activate(state)
        self._refused = ''
        try:
            assert self._outputs is not None
            self._outputs.publish_legend(self._predictor.label_space)
            self._begin()
            self._inputs = Inputs(self, self._settings, self._on_image, self._on_bad)
        except Exception as error:
            self._stop()
            super().on_deactivate(state)
            return self._refuse('activated', error)
        self.get_logger().info(f'active: {self._inputs.describe()}')
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the pair being worked on is still published."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back the network, its memory and the publishers."""
        self._refused = ''
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and give everything back, from any state."""
        self.destroy_timer(self._report_timer)
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back, so that the node can be configured anew."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def autostart(self) -> int:
        """Configure and activate, if so set; returns the exit status, 0 where all is well."""
        if not self.get_parameter('autostart').value:
            return 0
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                return self._exit_status
        return 0

    def close(self) -> None:
        """Stop the thread and say what was done; the node may be destroyed afterwards."""
        self._release()
        counts = self._health.counts({})
        if counts['pairs_in']:
            text = ', '.join(f'{name} {count}' for name, count in counts.items())
            self.get_logger().info(f'done: {text}')

    def _refuse(self, what: str, error: Exception) -> TransitionCallbackReturn:
        """Say why a transition fails; a fault of the program shows where it came from."""
        self._refused = f'cannot be {what}: {str(error) or type(error).__name__}'
        self._exit_status = 2 if isinstance(error, SartmError) else 1
        if isinstance(error, SartmError):
            self.get_logger().error(self._refused)
            return TransitionCallbackReturn.FAILURE
        text = ''.join(traceback.format_exception(error))
        self.get_logger().error(f'cannot be {what}:\n{text}')
        return TransitionCallbackReturn.ERROR

    def _begin(self) -> None:
        """Start the inference thread, with nothing waiting and nothing known of the streams."""
        self._pipeline = Pipeline(
            self._predictor,
            self._settings,
            self._health,
            self._outputs,
            warn=self._diagnostics.warn,
        )
        self._armed_ns = None
        self._deadline_timer = self.create_timer(1.0, self._on_deadline, clock=self._steady)
        self._deadline_timer.cancel()
        self._health.restart_clocks()

    def _end(self) -> None:
        if self._deadline_timer is not None:
            self.destroy_timer(self._deadline_timer)
            self._deadline_timer = None
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _stop(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        self._end()

    def _release(self) -> None:
        self._stop()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        self._predictor = None
        memory.give_back()

    def _load(self) -> Any:
        from sartm_model.inference.onnx_predictor import open_predictor

        settings = self._settings
        begun_s = time.monotonic()
        predictor = open_predictor(
            settings.checkpoint,
            device=settings.device,
            precision=settings.precision,
            thermal_range=thermal_range(settings),
            homography=ros_parameters.homography(settings),
        )
        if settings.warm_up_height and settings.warm_up_width:
            predictor.warm_up(settings.warm_up_height, settings.warm_up_width)
        self.get_logger().info(
            f'configured in {time.monotonic() - begun_s:.1f} s: checkpoint {settings.checkpoint}, '
            f'{len(predictor.label_space)} classes, {predictor.device} in {predictor.precision}'
        )
        return predictor

    # Messages -------------------------------------------------------------------------------------

    def _on_image(self, which: str, msg: Any) -> None:
        if self._pipeline is not None:
            self._pipeline.add(which, msg)
            self._arm(self._pipeline.deadline_ns)

    def _on_bad(self, which: str, error: SartmError) -> None:
        """Count a message that cannot be read, and go on."""
        self._health.received(which)
        self._health.dropped(UNREADABLE[which], error=f'{which}: {error}')
        self._diagnostics.warn(UNREADABLE[which], f'message dropped: {which}: {error}')

    def _on_deadline(self) -> None:
        if self._pipeline is not None:
            self._pipeline.poll()
            self._armed_ns = None
            self._deadline_timer.cancel()
            self._arm(self._pipeline.deadline_ns)

    def _arm(self, deadline_ns: int | None) -> None:
        """Set the timer to the monotonic time at which an image has waited long enough.

        A timer that is due earlier is left as it is and looks again then: to set it anew with each
        pair costs more than to let it go off in vain now and then.
        """
        if deadline_ns is None or (self._armed_ns is not None and self._armed_ns <= deadline_ns):
            return
        self._armed_ns = deadline_ns
        wait_ns = max(deadline_ns - time.monotonic_ns(), 0)
        self._deadline_timer.timer_period_ns = wait_ns + 1_000_000
        self._deadline_timer.reset()

    # Reports and settings -------------------------------------------------------------------------

    def _report(self) -> None:
        if self._inputs is not None and self._pipeline is not None:
            inputs = self._inputs
            inputs.follow()
            drops = self._pipeline.drops
            report = self._health.report(inputs.topics, drops, inputs.why_silent)
            for which in inputs.topics:
                self._diagnostics.warn_if_silent(which, self._health.silence_s(which), inputs)
        elif self._refused:
            report = self._health.idle(self._refused, ERROR)
        elif self._predictor is None:
            report = self._health.idle('unconfigured')
        else:
            report = self._health.idle('inactive' if self._inputs is None else 'disabled')
        sides = [side for side in (self._inputs, self._outputs) if side is not None]
        mismatches = [text for side in sides for text in side.mismatches()]
        device = self._predictor.device if self._predictor is not None else None
        self._diagnostics.publish(report, mismatches, device)

    def _on_set_enabled(self, request: Any, response: Any) -> Any:
        """Begin or cease to look at images, in no time; the node stays active and subscribed."""
        if self._inputs is None:
            response.message = 'the node is not active; activate it first'
            return response
        if request.data and self._pipeline is None:
            self._begin()
        elif not request.data:
            self._end()
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        self.get_logger().info(response.message)
        return response

    def _on_set_parameters(self, changes: list[Any]) -> SetParametersResult:
        """All changes of one request take effect together, or none does."""
        if self._predictor is None:
            # Not configured: configure will check the values, when all are set.
            return SetParametersResult(successful=True)
        try:
            settings = ros_parameters.changed(
                self._settings, [(change.name, change.value) for change in changes]
            )
            self._predictor.check(thermal_range(settings), ros_parameters.homography(settings))
        except SartmError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = settings
        if self._pipeline is not None:
            self._pipeline.apply(settings)
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None, make_node: Callable[[], SartmNode] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status (see the module's text)."""
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        # A second signal ends a process that does not come to its end.
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has no common class for wrong --ros-args
        print(f'sartm_node: ROS does not start: {type(error).__name__} {error}', file=sys.stderr)
        return 2
    try:
        node = (make_node or SartmNode)()
        status = node.autostart()
        if status == 0:
            _spin(node, stop)
        node.close()
        node.destroy_node()
        return status
    except SartmError as error:
        print(f'sartm_node: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()


def _spin(node: SartmNode, stop: threading.Event) -> None:
    """Serve the node in a second thread; the first waits where Python can act on a signal."""
    executor = Executor()
    executor.add_node(node)

    def serve() -> None:
        while not stop.is_set():
            try:
                executor.spin_once(SPIN_S)
            except Exception:
                node.get_logger().error(f'a callback failed:\n{traceback.format_exc()}')

    thread = threading.Thread(target=serve, name='executor')
    thread.start()
    stop.wait()
    executor.create_task(lambda: None)  # a mere wake-up does not return from spin_once
    thread.join()
    executor.shutdown()


if __name__ == '__main__':
    sys.exit(main())
