"""The lifecycle node `sartm`: it subscribes to two image topics and publishes labels.

This module connects the parts. Messages arrive in the executor's thread, which never waits for the
network: `frame_pipeline` runs it in a thread of its own. torch is imported when the node is
configured. `main` is the process around the node.
"""

from __future__ import annotations

import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from sartm_model.errors import SartmError
from sartm_ros.diagnosis import memory
from sartm_ros.diagnosis.diagnostics import Diagnostics
from sartm_ros.diagnosis.health import Health, unreadable_reason
from sartm_ros.diagnosis.judgement import ERROR, OK, Report, judge
from sartm_ros.node.deadline_timer import DeadlineTimer
from sartm_ros.node.frame_pipeline import FramePipeline
from sartm_ros.node.publishers import Publishers
from sartm_ros.node.subscriptions import Subscriptions, topic_names
from sartm_ros.node.transitions import answer_impossible_transitions, reported
from sartm_ros.settings import ros_parameters
from sartm_ros.settings.cameras import without_unused_topics
from sartm_ros.settings.loading import load_predictor
from sartm_ros.settings.parameters import NAMES, Parameters, homography, thermal_settings
from sartm_ros.sync.matching import make_matcher

REPORT_PERIOD_S = 1.0


class SartmNode(LifecycleNode):
    """Publishes `~/labels`, `~/overlay` and `~/confidence`, raw and compressed, `~/camera_info`,
    `~/status`, `~/latency`, `~/classes`, `~/label_info` and `/diagnostics`; serves `~/set_enabled`.

    Attributes:
        fatal_error: why the process is to end, because a new one may work, or ''.

    Raises:
        SartmError: a parameter given at the start has the wrong type or is out of range.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('sartm', **kwargs)
        answer_impossible_transitions(self)
        ros_parameters.declare(self)
        ros_parameters.warn_of_unknown(self)
        self.fatal_error = ''
        self._current_parameters = Parameters()
        self._health = Health(self._current_parameters.x_modality)
        self._predictor: Any = None  # set while configured
        self._result_publishers: Publishers | None = None  # set while configured
        self._image_subscriptions: Subscriptions | None = None  # set while active
        self._pipeline: FramePipeline | None = None  # set while active
        self._deadline_timer: DeadlineTimer | None = None  # set while active
        self._enabled = True
        self._was_active = False
        self._starting = False  # while it is configured or activated
        self._last_failure = ''  # why the last transition failed
        self._exit_status = 0
        # Deadlines and reports use the steady clock even where message stamps are simulated time.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(self)
        self._report_timer = self.create_timer(
            REPORT_PERIOD_S, self._report, clock=self._steady_clock
        )
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.add_on_set_parameters_callback(self._check_parameters)
        self._applies_after = hasattr(self, 'add_post_set_parameters_callback')  # not in Humble
        if self._applies_after:
            self.add_post_set_parameters_callback(self._apply_parameters)

    # Lifecycle ------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load and warm up the network, create the publishers."""
        self._last_failure = ''
        failure = None
        self._starting = True
        try:
            self._current_parameters = ros_parameters.read(self)
            image_topics = topic_names(self, self._current_parameters)
            make_matcher(self._current_parameters)  # fails if the policy is not installed
            self._health = Health(self._current_parameters.x_modality)
            self._predictor = load_predictor(self._current_parameters, self.get_logger())
            self._result_publishers = Publishers(self, image_topics.values())
            memory.freeze_gc()
        except Exception as error:
            failure = self.fail_transition('configured', error)
        finally:
            self._starting = False
        if failure is not None:
            # After the `except` clause, in which the error's traceback keeps the network alive.
            self._release()
            return failure
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the inference thread. An inactive node receives no images."""
        super().on_activate(state)
        self._last_failure = ''
        self._starting = True
        try:
            assert self._result_publishers is not None
            self._result_publishers.publish_classes(self._predictor.label_space)
            used_parameters = self._used_parameters()
            self._enabled = True
            self._pipeline = FramePipeline(
                self._predictor,
                used_parameters,
                self._health,
                self._result_publishers,
                warn=self._diagnostics.warn,
            )
            self._deadline_timer = DeadlineTimer(self, self._steady_clock, self._pipeline)
            self._health.restart_clocks()
            self._image_subscriptions = Subscriptions(
                self,
                used_parameters,
                self._on_image,
                self._on_unreadable,
                self._result_publishers.keep_camera_info,
            )
        except Exception as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self.fail_transition('activated', error)
        finally:
            self._starting = False
        self._was_active = True
        ros_parameters.warn_of_unknown(self, of_topics=True)
        self.get_logger().info(f'active: {self._image_subscriptions.describe()}')
        return TransitionCallbackReturn.SUCCESS

    @reported('deactivated')
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the pair that the network is working on is still published."""
        self._unsubscribe()
        return super().on_deactivate(state)

    @reported('cleaned up')
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the network, its memory and the publishers."""
        self._last_failure = ''
        self._release()
        return super().on_cleanup(state)

    @reported('shut down')
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release everything, from any state."""
        self._release()
        self.destroy_timer(self._report_timer)  # a node that cannot be released goes on reporting
        return super().on_shutdown(state)

    @reported('cleaned up after an error')
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, so that the node can be configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def autostart(self) -> int:
        """Configure and activate if `autostart` is set; return the exit status, 0 on success."""
        if not self.get_parameter('autostart').value:
            return 0
        try:
            for trigger in (self.trigger_configure, self.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    return self._exit_status
        except RuntimeError as error:  # rclpy's RCLError: a service has changed the state meanwhile
            self.get_logger().warning(f'the start is left to ~/change_state: {error}')
        return 0

    def close(self) -> None:
        """Stop the inference thread and log the counters; the node may be destroyed afterwards."""
        try:
            self._release()
        except Exception:  # such as an error of the GPU, which the process does not survive
            self.get_logger().error(f'cannot be closed:\n{traceback.format_exc()}')
        if self._was_active:
            counts = self._health.counts({}).items()
            text = ', '.join(f'{name} {count}' for name, count in counts)
            self.get_logger().info(f'done: {text}')

    def fail_transition(self, what: str, error: Exception) -> TransitionCallbackReturn:
        """Log why a transition fails, and the traceback of an error that is not a SartmError."""
        self._last_failure = f'cannot be {what}: {str(error) or type(error).__name__}'
        self._exit_status = 2 if isinstance(error, SartmError) else 1
        if isinstance(error, SartmError):
            self.get_logger().error(self._last_failure)
            return TransitionCallbackReturn.FAILURE
        text = ''.join(traceback.format_exception(error))
        self.get_logger().error(f'cannot be {what}:\n{text}')
        return TransitionCallbackReturn.ERROR

    def _used_parameters(self) -> Parameters:
        """Return the parameters without the topics of images that the network does not take."""
        return without_unused_topics(self._current_parameters, self._predictor.modalities)

    def _unsubscribe(self) -> None:
        if self._image_subscriptions is not None:
            self._image_subscriptions.close()
            self._image_subscriptions = None
        if self._deadline_timer is not None:
            self._deadline_timer.close()
            self._deadline_timer = None
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def _release(self) -> None:
        self._unsubscribe()
        if self._result_publishers is not None:
            self._result_publishers.close()
            self._result_publishers = None
        self._predictor = None
        memory.release_memory()

    # Messages -------------------------------------------------------------------------------------

    def _on_image(self, camera: str, msg: Any) -> None:
        if self._enabled and self._pipeline is not None and self._deadline_timer is not None:
            self._pipeline.add(camera, msg)
            self._deadline_timer.schedule()

    def _on_unreadable(self, camera: str, error: SartmError) -> None:
        """Count a message that cannot be read."""
        if not self._enabled:
            return
        self._health.record_received(camera)
        self._health.record_dropped(unreadable_reason(camera), error=f'{camera}: {error}')
        self._diagnostics.warn(unreadable_reason(camera), f'message dropped: {camera}: {error}')

    # Reports and parameters -----------------------------------------------------------------------

    def _report(self) -> None:
        """Publish the diagnostics; called once a second in every state."""
        subscriptions, pipeline = self._image_subscriptions, self._pipeline
        if pipeline is not None and pipeline.fatal_error and not self.fatal_error:
            self.fatal_error = pipeline.fatal_error
            self.get_logger().fatal(f'this process ends: {self.fatal_error}')
        recent = self._health.recent({} if pipeline is None else pipeline.drops)
        if self.fatal_error or self._last_failure:
            report = Report(ERROR, self.fatal_error or self._last_failure, recent.values)
        elif self._predictor is None:
            state = 'configuring' if self._starting else 'unconfigured'
            report = Report(OK, state, recent.values)
        elif subscriptions is None or pipeline is None:
            report = Report(OK, 'inactive', recent.values)
        elif not self._enabled:
            report = Report(OK, 'disabled', recent.values)
        else:
            subscriptions.refresh_subscriptions()
            report = judge(
                recent,
                pipeline.timing,
                subscriptions.topics,
                subscriptions.explain_silence,
                pipeline.busy_s,
            )
        mismatches = [
            text
            for endpoints in (subscriptions, self._result_publishers)
            if endpoints is not None
            for text in endpoints.qos_mismatches()
        ]
        device = self._predictor.device if self._predictor is not None else None
        self._diagnostics.publish(report, mismatches, device)

    def _on_set_enabled(self, request: Any, response: Any) -> Any:
        """Start or stop processing at once; the node stays active and subscribed.

        The pair that the network is working on is still published.
        """
        if self._pipeline is None:
            response.message = 'the node is not active; activate it first'
            return response
        if request.data and not self._enabled:
            self._health.restart_clocks()
        elif not request.data:
            self._pipeline.restart()
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'disabled'
        self.get_logger().info(response.message)
        return response

    def _check_parameters(self, changes: list[Any]) -> SetParametersResult:
        """Accept all changes of one request together, or none of them."""
        if not _has_own(changes):
            return SetParametersResult(successful=True)
        if reason := ros_parameters.describe_deletion(changes):
            return SetParametersResult(successful=False, reason=reason)
        if self._starting:
            reason = (
                'the node is being configured or activated; set it when ~/get_state says inactive '
                'or active'
            )
            return SetParametersResult(successful=False, reason=reason)
        if self._predictor is None:
            # `on_configure` checks the values, when all of them are set.
            return SetParametersResult(successful=True)
        try:
            parameters = self._updated(changes)
            self._predictor.check(thermal_settings(parameters), homography(parameters))
        except SartmError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not self._applies_after:
            self._apply_parameters(changes)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: list[Any]) -> None:
        """Apply accepted changes; the next frame uses all of them."""
        if self._predictor is None or not _has_own(changes):
            return
        self._current_parameters = self._updated(changes)
        if self._pipeline is not None:
            self._pipeline.apply(self._used_parameters())

    def _updated(self, changes: list[Any]) -> Parameters:
        pairs = [(change.name, change.value) for change in changes]
        return ros_parameters.update(self._current_parameters, pairs)


def _has_own(changes: list[Any]) -> bool:
    """Return whether one of the node's parameters changes.

    Others are declared where it publishes and subscribes: those of the topics' QoS.
    """
    return any(change.name in NAMES for change in changes)
