"""The lifecycle node `sartm`: it subscribes to two image topics and publishes labels.

This module connects the parts. Messages arrive in the executor's thread, which never waits for the
network: `frame_pipeline` runs it in a thread of its own. torch is imported when the node is
configured. `main` is the process around the node.
"""

from __future__ import annotations

import time
import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from sartm_model.errors import SartmError
from sartm_ros.node import memory, ros_parameters
from sartm_ros.node.diagnostics import Diagnostics
from sartm_ros.node.frame_pipeline import FramePipeline
from sartm_ros.node.health import ERROR, UNREADABLE, Health
from sartm_ros.node.matching import make_matcher
from sartm_ros.node.parameters import Parameters, homography, thermal_range
from sartm_ros.node.publishers import Publishers
from sartm_ros.node.subscriptions import Subscriptions, topic_names

REPORT_PERIOD_S = 1.0

DEADLINE_SLACK_NS = 1_000_000
"""Added to the time at which the deadline timer fires, so that the deadline has passed by then."""


class SartmNode(LifecycleNode):
    """Publishes `~/labels`, `~/overlay` and `~/confidence`, raw and compressed, `~/status`,
    `~/latency`, `~/classes`, `~/label_info` and `/diagnostics`; serves `~/set_enabled`.

    Raises:
        SartmError: a parameter given at the start has the wrong type or is out of range.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('sartm', **kwargs)
        ros_parameters.declare(self)
        self._settings = Parameters()
        self._health = Health()
        self._predictor: Any = None  # set while configured
        self._result_publishers: Publishers | None = None  # set while configured
        self._image_subscriptions: Subscriptions | None = None  # set while active
        self._pipeline: FramePipeline | None = None  # set while active and enabled
        self._deadline_timer: Any = None
        self._timer_due_ns: int | None = None
        self._last_failure = ''  # why the last transition failed
        self._exit_status = 0
        # Deadlines and reports use the steady clock even where message stamps are simulated time.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(self)
        self._report_timer = self.create_timer(
            REPORT_PERIOD_S, self._report, clock=self._steady_clock
        )
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    # Lifecycle ------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load and warm up the network, create the publishers."""
        self._last_failure = ''
        failure = None
        try:
            self._settings = ros_parameters.read(self)
            topic_names(self, self._settings)
            make_matcher(self._settings)
            self._health = Health()
            self._predictor = self._load()
            self._result_publishers = Publishers(self)
            memory.freeze_gc()
        except Exception as error:
            failure = self._fail_transition('configured', error)
        if failure is not None:
            # After the `except` clause, in which the error's traceback keeps the network alive.
            self._release()
            return failure
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the inference thread. An inactive node receives no images."""
        super().on_activate(state)
        self._last_failure = ''
        try:
            assert self._result_publishers is not None
            self._result_publishers.publish_classes(self._predictor.label_space)
            self._start_pipeline()
            self._image_subscriptions = Subscriptions(
                self, self._settings, self._on_image, self._on_unreadable
            )
        except Exception as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self._fail_transition('activated', error)
        self.get_logger().info(f'active: {self._image_subscriptions.describe()}')
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the pair that the network is working on is still published."""
        self._unsubscribe()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the network, its memory and the publishers."""
        self._last_failure = ''
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release everything, from any state."""
        self.destroy_timer(self._report_timer)
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, so that the node can be configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def autostart(self) -> int:
        """Configure and activate if `autostart` is set; return the exit status, 0 on success."""
        if not self.get_parameter('autostart').value:
            return 0
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                return self._exit_status
        return 0

    def close(self) -> None:
        """Stop the inference thread and log the counters; the node may be destroyed afterwards."""
        self._release()
        counts = self._health.counts({})
        if counts['pairs_in']:
            text = ', '.join(f'{name} {count}' for name, count in counts.items())
            self.get_logger().info(f'done: {text}')

    def _fail_transition(self, what: str, error: Exception) -> TransitionCallbackReturn:
        """Log why a transition fails; an error that is not a SartmError with its traceback."""
        self._last_failure = f'cannot be {what}: {str(error) or type(error).__name__}'
        self._exit_status = 2 if isinstance(error, SartmError) else 1
        if isinstance(error, SartmError):
            self.get_logger().error(self._last_failure)
            return TransitionCallbackReturn.FAILURE
        text = ''.join(traceback.format_exception(error))
        self.get_logger().error(f'cannot be {what}:\n{text}')
        return TransitionCallbackReturn.ERROR

    def _start_pipeline(self) -> None:
        """Start the inference thread, with empty queues and unknown frame rates."""
        self._pipeline = FramePipeline(
            self._predictor,
            self._settings,
            self._health,
            self._result_publishers,
            warn=self._diagnostics.warn,
        )
        self._timer_due_ns = None
        self._deadline_timer = self.create_timer(1.0, self._on_deadline, clock=self._steady_clock)
        self._deadline_timer.cancel()
        self._health.restart_clocks()

    def _stop_pipeline(self) -> None:
        if self._deadline_timer is not None:
            self.destroy_timer(self._deadline_timer)
            self._deadline_timer = None
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _unsubscribe(self) -> None:
        if self._image_subscriptions is not None:
            self._image_subscriptions.close()
            self._image_subscriptions = None
        self._stop_pipeline()

    def _release(self) -> None:
        self._unsubscribe()
        if self._result_publishers is not None:
            self._result_publishers.close()
            self._result_publishers = None
        self._predictor = None
        memory.release_memory()

    def _load(self) -> Any:
        from sartm_model.inference.onnx_predictor import open_predictor

        settings = self._settings
        begun_s = time.monotonic()
        predictor = open_predictor(
            settings.checkpoint,
            device=settings.device,
            precision=settings.precision,
            thermal_range=thermal_range(settings),
            homography=homography(settings),
        )
        if settings.warm_up_height and settings.warm_up_width:
            predictor.warm_up(settings.warm_up_height, settings.warm_up_width)
        self.get_logger().info(
            f'configured in {time.monotonic() - begun_s:.1f} s: checkpoint {settings.checkpoint}, '
            f'{len(predictor.label_space)} classes, {predictor.device} in {predictor.precision}'
        )
        return predictor

    # Messages -------------------------------------------------------------------------------------

    def _on_image(self, camera: str, msg: Any) -> None:
        if self._pipeline is not None:
            self._pipeline.add(camera, msg)
            self._schedule_deadline(self._pipeline.deadline_ns)

    def _on_unreadable(self, camera: str, error: SartmError) -> None:
        """Count a message that cannot be read."""
        self._health.received(camera)
        self._health.dropped(UNREADABLE[camera], error=f'{camera}: {error}')
        self._diagnostics.warn(UNREADABLE[camera], f'message dropped: {camera}: {error}')

    def _on_deadline(self) -> None:
        if self._pipeline is not None:
            self._pipeline.poll()
            self._timer_due_ns = None
            self._deadline_timer.cancel()
            self._schedule_deadline(self._pipeline.deadline_ns)

    def _schedule_deadline(self, deadline_ns: int | None) -> None:
        """Set the timer to the monotonic time at which the oldest image has waited long enough.

        A timer that is due earlier is left alone and is set again when it fires: setting it for
        each pair costs more than a few callbacks that find nothing to do.
        """
        if deadline_ns is None or (
            self._timer_due_ns is not None and self._timer_due_ns <= deadline_ns
        ):
            return
        self._timer_due_ns = deadline_ns
        wait_ns = max(deadline_ns - time.monotonic_ns(), 0)
        self._deadline_timer.timer_period_ns = wait_ns + DEADLINE_SLACK_NS
        self._deadline_timer.reset()

    # Reports and settings -------------------------------------------------------------------------

    def _report(self) -> None:
        """Publish the diagnostics; called once a second in every state."""
        subscriptions = self._image_subscriptions
        if subscriptions is not None and self._pipeline is not None:
            subscriptions.refresh_subscriptions()
            report = self._health.report(
                subscriptions.topics, self._pipeline.drops, subscriptions.explain_silence
            )
            for camera in subscriptions.topics:
                silence_s = self._health.silence_s(camera)
                self._diagnostics.warn_if_silent(camera, silence_s, subscriptions)
        elif self._last_failure:
            report = self._health.idle(self._last_failure, ERROR)
        elif self._predictor is None:
            report = self._health.idle('unconfigured')
        else:
            report = self._health.idle('inactive' if subscriptions is None else 'disabled')
        mismatches = [
            text
            for endpoints in (subscriptions, self._result_publishers)
            if endpoints is not None
            for text in endpoints.qos_mismatches()
        ]
        device = self._predictor.device if self._predictor is not None else None
        self._diagnostics.publish(report, mismatches, device)

    def _on_set_enabled(self, request: Any, response: Any) -> Any:
        """Start or stop processing at once; the node stays active and subscribed."""
        if self._image_subscriptions is None:
            response.message = 'the node is not active; activate it first'
            return response
        if request.data and self._pipeline is None:
            self._start_pipeline()
        elif not request.data:
            self._stop_pipeline()
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        self.get_logger().info(response.message)
        return response

    def _on_set_parameters(self, changes: list[Any]) -> SetParametersResult:
        """Apply all changes of one request together, or none of them."""
        if self._predictor is None:
            # `on_configure` checks the values, when all of them are set.
            return SetParametersResult(successful=True)
        try:
            settings = ros_parameters.update(
                self._settings, [(change.name, change.value) for change in changes]
            )
            self._predictor.check(thermal_range(settings), homography(settings))
        except SartmError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = settings
        if self._pipeline is not None:
            self._pipeline.apply(settings)
        return SetParametersResult(successful=True)
