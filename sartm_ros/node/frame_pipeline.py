"""A frame's way through the node, from two message streams to published labels. No ROS import.

matcher -> slot for one pair -> inference thread: read the messages -> network -> publish.

While a camera stalls a pair may lack its image: see `stall_detection` and the parameters
`rgb.on_stall` and `thermal.on_stall`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sartm_model.inference.prediction import Prediction
from sartm_ros.diagnosis.failures import Failures
from sartm_ros.diagnosis.health import Health
from sartm_ros.diagnosis.input_timing import InputTiming
from sartm_ros.diagnosis.observations import Observations
from sartm_ros.messages.images import stamp_of
from sartm_ros.node.inference_worker import LatestWorker
from sartm_ros.settings.parameters import (
    Parameters,
    homography,
    seconds_to_ns,
    thermal_settings,
)
from sartm_ros.sync.matching import make_matcher, update_matcher
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher
from sartm_ros.sync.pair_matcher import Pair, PairMatcher
from sartm_ros.sync.stall_detection import StallPolicy, UsableImages


class FramePipeline:
    """Pairs messages, and runs the network and publishes its results in a thread of its own.

    One thread calls the methods, of which only `stop` waits for the network.

    Args:
        predictor: a `sartm_model.inference.predictor.Predictor`.
        parameters: of the node; `apply` changes them.
        health: counts and measures.
        publishers: a `sartm_ros.node.publishers.Publishers`, used by the inference thread.
        warn: called with a key and a text; logs the text, at most once in a while for each key.

    Attributes:
        timing: what the stamps of both topics tell.

    Raises:
        SartmError: the matching policy is not installed.
    """

    def __init__(
        self,
        predictor: Any,
        parameters: Parameters,
        health: Health,
        publishers: Any,
        *,
        warn: Callable[[str, str], None],
    ) -> None:
        self._predictor = predictor
        self._health = health
        self._publishers = publishers
        self._parameters = parameters
        self._matcher, self._stall_policy, self.timing = _new_stream_state(parameters)
        self._due_ns = 0  # from which monotonic time on `max_rate` allows the next pair
        self._observations = Observations(health, warn)
        self._failures = Failures(health, warn)
        self._predictor_parameters: Parameters | None = None  # what the predictor was last given
        self._worker: LatestWorker[tuple[Pair, int]] = LatestWorker(
            self._process, self._handle_failure, 'inference'
        )
        self._published = False  # whether the pair in work has its labels
        self._worker.start()

    @property
    def drops(self) -> Mapping[str, int]:
        """The number of messages that the matcher has dropped, by reason."""
        return self._matcher.drops

    @property
    def deadline_ns(self) -> int | None:
        """The monotonic time at which `poll` is due; None while no message waits."""
        return self._matcher.deadline_ns

    @property
    def busy_s(self) -> float:
        """How long the pair in work has been in the inference thread, in seconds; 0 without one."""
        return self._worker.busy_s

    @property
    def fatal_error(self) -> str:
        """Why no result is to be expected from this process any more, or ''."""
        failure = self._worker.failure
        if failure is not None:
            return f'the inference thread has ended: {type(failure).__name__}: {failure}'
        return self._failures.fatal_error

    def apply(self, parameters: Parameters) -> None:
        """Apply the parameters that may change at run time."""
        self._parameters = self.timing.parameters = parameters
        self._due_ns = 0  # a new `max_rate` has effect at once
        update_matcher(self._matcher, parameters)

    def add(self, camera: str, msg: Any) -> None:
        """Take a message of a camera."""
        self._health.record_received(camera)
        now_ns = time.monotonic_ns()
        header_ns = stamp_of(msg.header)
        self.timing.add(camera, header_ns, now_ns)
        add = self._matcher.add_rgb if camera == 'rgb' else self._matcher.add_x
        by_arrival = self._parameters.sync_stamp == 'arrival'
        self._queue(add(now_ns if by_arrival else header_ns, msg, now_ns))

    def poll(self) -> None:
        """Process or drop the messages that have waited long enough."""
        self._queue(self._matcher.poll(time.monotonic_ns()))

    def restart(self) -> None:
        """Discard the images that wait and forget the rates and stalls of the cameras.

        The pair that the network is working on is still published.
        """
        self._health.record_dropped('stopped', self._worker.clear())
        self._stop_matching()
        # The inference thread takes the policy anew for each pair.
        self._matcher, self._stall_policy, self.timing = _new_stream_state(self._parameters)
        self._due_ns = 0

    def stop(self) -> None:
        """Let the pair that the network is working on be published, and end the thread."""
        self._health.record_dropped('stopped', self._worker.stop())
        self._stop_matching()

    def _stop_matching(self) -> None:
        self._matcher.stop()
        for reason, count in self._matcher.drops.items():
            self._health.record_dropped(reason, count)

    def _queue(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            alone = pair.rgb is None or pair.x is None
            self._health.record_pair(None if alone else pair.skew_ns)
            now_ns = time.monotonic_ns()
            if not self._is_due(now_ns):
                self._health.record_dropped('rate')
            elif self._worker.put((pair, now_ns)):
                self._health.record_dropped('replaced')

    def _is_due(self, now_ns: int) -> bool:
        """Return whether `max_rate` lets a pair be processed; the next one is then due later.

        A pair that comes up to half an interval late does not put off those after it. So the mean
        rate is kept where the cameras' rate is no multiple of it.
        """
        rate_hz = self._parameters.max_rate_hz
        if not rate_hz:
            return True
        interval_ns = seconds_to_ns(1 / rate_hz)
        if now_ns < self._due_ns:
            return False
        self._due_ns = max(self._due_ns, now_ns - interval_ns // 2) + interval_ns
        return True

    def _process(self, item: tuple[Pair, int]) -> None:
        """Predict and publish one pair; runs in the inference thread."""
        begun_ns = time.monotonic_ns()
        self._published = False
        pair, matched_ns = item
        parameters = self._parameters  # which `apply` may replace meanwhile
        header = _header(pair, parameters)
        self._configure_predictor(parameters)
        images = self._stall_policy.usable_images(pair, parameters)
        self._observations.record_images(images, parameters)
        if images.modality is None:
            self._health.record_dropped(f'stall_{images.states[parameters.x_modality]}')
            return
        read_ns = time.monotonic_ns()
        prediction = self._predict(images, pair, parameters)
        predicted_ns = time.monotonic_ns()
        self._publish_labels(prediction.labels, header)
        published_ns = time.monotonic_ns()
        stages_s = {
            'match': _seconds(pair.arrival_ns, matched_ns),
            'wait': _seconds(matched_ns, begun_ns),
            'read': _seconds(begun_ns, read_ns),
            **prediction.stages_s,
            'publish': _seconds(predicted_ns, published_ns),
        }
        latency_s = _seconds(pair.arrival_ns, published_ns)
        self._health.record_result(latency_s, images.modality)
        self._health.record_stages(stages_s)
        self._publishers.publish_latency(latency_s)
        self._publishers.publish_status(
            _status(stamp_of(header), parameters.x_modality, images, latency_s, stages_s)
        )
        camera = parameters.x_modality if pair.rgb is None else 'rgb'
        self._publishers.publish_camera_info(camera, prediction.labels.shape, header)
        self._publish_extras(prediction, header)
        self._health.record_stages({'extras': _seconds(published_ns, time.monotonic_ns())})

    def _predict(self, images: UsableImages, pair: Pair, parameters: Parameters) -> Prediction:
        """Run the network on the images of a pair, for the outputs that someone subscribes to."""
        prediction: Prediction = self._predictor.predict(
            {'rgb': images.rgb, parameters.x_modality: images.x},
            confidence=self._publishers.has_listener('confidence'),
            overlay=self._publishers.has_listener('overlay'),
            overlay_opacity=parameters.overlay_opacity,
            time_s=pair.stamp_ns * 1e-9,
            copy=False,  # all that is published is copied into messages before the next pair
        )
        return prediction

    def _publish_labels(self, labels: np.ndarray, header: Any) -> None:
        self._observations.record_labels(labels)
        self._publishers.publish('labels', labels, header)
        self._published = True
        self._failures.reset()

    def _handle_failure(self, error: Exception) -> float:
        return self._failures.handle(error, published=self._published)

    def _publish_extras(self, prediction: Prediction, header: Any) -> None:
        """Publish what was requested besides the labels."""
        extras = [('overlay', prediction.overlay), ('confidence', prediction.confidence)]
        requested = [(name, image) for name, image in extras if image is not None]
        for name, image in requested:
            self._publishers.publish(name, image, header)
        # Compressed images come last, so that no raw image waits for a compression.
        for name, image in [('labels', prediction.labels), *requested]:
            self._publishers.publish_compressed(name, image, header)

    def _configure_predictor(self, parameters: Parameters) -> None:
        """Pass changed parameters to the predictor between two frames, all of them together."""
        if parameters is self._predictor_parameters:
            return
        self._predictor.thermal_settings = thermal_settings(parameters)
        self._predictor.homography = homography(parameters)
        self._predictor_parameters = parameters


def _new_stream_state(
    parameters: Parameters,
) -> tuple[PairMatcher | MessageFilterMatcher, StallPolicy, InputTiming]:
    """Return a new matcher, stall policy and timing: all that is remembered of earlier images."""
    return make_matcher(parameters), StallPolicy(parameters.x_modality), InputTiming(parameters)


def _seconds(start_ns: int, end_ns: int) -> float:
    return (end_ns - start_ns) * 1e-9


def _header(pair: Pair, parameters: Parameters) -> Any:
    """Return the RGB message's header; without RGB that of the second camera.

    If images are paired by the stamps of headers, `sync.thermal_offset` is added to that.
    """
    if pair.rgb is not None:
        return pair.rgb.header
    header = copy.deepcopy(pair.x.header)
    if parameters.sync_stamp == 'header':
        header.stamp.sec, header.stamp.nanosec = divmod(pair.stamp_ns, 1_000_000_000)
    return header


def _status(
    header_ns: int,
    x_modality: str,
    images: UsableImages,
    latency_s: float,
    stages_s: Mapping[str, float],
) -> dict[str, Any]:
    """Return the content of `~/status` for a result; `header_ns` is the stamp of its header."""
    return {
        'stamp_ns': header_ns,
        'modality': images.modality,
        'x_modality': x_modality,  # says what 'both' are: RGB and this
        **images.states,
        'latency_ms': round(latency_s * 1e3, 3),
        'stages_ms': {name: round(time_s * 1e3, 3) for name, time_s in stages_s.items()},
        'skew_ms': round(images.skew_ns * 1e-6, 3) if images.modality == 'both' else None,
    }
