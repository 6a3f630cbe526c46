"""The way of a frame through the node, from two message streams to a prediction. No ROS import.

matcher -> slot for one pair -> inference thread: views of the messages -> network -> `publish`.

Where a camera stalls the pair may lack its image: see `stalls` and the parameters `*.on_stall`.
"""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID
from sartm_ros.messages.images import stamp_ns
from sartm_ros.node.health import TOPICS, Health
from sartm_ros.node.inference_worker import LatestWorker
from sartm_ros.node.out_of_memory import free_memory, is_out_of_memory, next_pause_s
from sartm_ros.node.parameters import Parameters, homography, seconds_to_ns
from sartm_ros.node.stall_detection import StallPolicy
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher
from sartm_ros.sync.pair_matcher import Pair, PairMatcher


class Pipeline:
    """Pairs messages, and predicts and publishes in a thread of its own.

    `add` and `poll` are called by one thread and never wait for the network.

    Args:
        predictor: a `sartm_model.inference.predictor.Predictor`.
        settings: as they are now; see `apply`.
        health: what is counted.
        outputs: a `sartm_ros.node.publishers.Outputs`; used by the thread.
        warn: called with a key and a text that should be logged now and then.

    Raises:
        SartmError: the matching policy is not installed.
    """

    def __init__(
        self,
        predictor: Any,
        settings: Parameters,
        health: Health,
        outputs: Any,
        *,
        warn: Callable[[str, str], None],
    ) -> None:
        self._predictor = predictor
        self._health = health
        self._outputs = outputs
        self._warn = warn
        self._matcher = make_matcher(settings)
        self.apply(settings)
        self._stalls = StallPolicy()
        self._told = dict.fromkeys(TOPICS, 'ok')
        self._pause_s = 0.0  # the last one for want of memory, since a pair came out
        self._prepared: Parameters | None = None  # what the predictor is set to
        self._worker: LatestWorker[tuple[Pair, int]] = LatestWorker(
            self._infer, self._failed, 'inference'
        )
        self._worker.start()

    @property
    def drops(self) -> Mapping[str, int]:
        """What the matcher has dropped, by reason."""
        return self._matcher.drops

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time at which `poll` is due; None while nothing waits."""
        return self._matcher.deadline_ns

    def apply(self, settings: Parameters) -> None:
        """Take over those settings that may change at run time."""
        self._settings = settings
        update_matcher(self._matcher, settings)

    def add(self, which: str, msg: Any) -> None:
        """Take a message of the topic 'rgb' or 'thermal'."""
        self._health.received(which)
        add = self._matcher.add_rgb if which == 'rgb' else self._matcher.add_thermal
        self._hand_over(add(stamp_ns(msg.header), msg, time.monotonic_ns()))

    def poll(self) -> None:
        """Let go of what has waited long enough."""
        self._hand_over(self._matcher.poll(time.monotonic_ns()))

    def stop(self) -> None:
        """Let the pair being worked on come out, and end the thread."""
        self._health.dropped('stopped', self._worker.stop())
        for reason, count in self._matcher.drops.items():
            self._health.dropped(reason, count)

    def _hand_over(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._health.paired(pair.skew_ns)
            if self._worker.put((pair, time.monotonic_ns())):
                self._health.dropped('replaced')

    def _infer(self, item: tuple[Pair, int]) -> None:
        taken_ns = time.monotonic_ns()
        pair, matched_ns = item
        outputs, header, settings = self._outputs, _header(pair), self._settings
        self._prepare(settings)
        view = self._stalls.view(pair, settings)
        self._report_stalls(view.states)
        if view.modality is None:
            self._health.dropped(f'stall_{view.states["thermal"]}')
            return
        read_ns = time.monotonic_ns()
        prediction = self._predictor.predict(
            view.rgb,
            view.thermal,
            confidence=outputs.wanted('confidence'),
            overlay=outputs.wanted('overlay'),
            overlay_opacity=settings.overlay_opacity,
            time_s=pair.stamp_ns * 1e-9,
        )
        predicted_ns = time.monotonic_ns()
        self._pause_s = 0.0
        self._report_nan(prediction.labels)
        outputs.publish('labels', prediction.labels, header)
        published_ns = time.monotonic_ns()
        latency_s = (published_ns - pair.arrival_ns) * 1e-9
        stages_s = {
            'match': (matched_ns - pair.arrival_ns) * 1e-9,
            'wait': (taken_ns - matched_ns) * 1e-9,
            'read': (read_ns - taken_ns) * 1e-9,
            **prediction.stages_s,
            'publish': (published_ns - predicted_ns) * 1e-9,
        }
        self._health.published(latency_s, view.modality)
        self._health.timed(stages_s)
        outputs.publish_latency(latency_s)
        outputs.publish_status(
            {
                'stamp_ns': pair.stamp_ns,
                'modality': view.modality,
                **view.states,
                'latency_ms': round(latency_s * 1e3, 3),
                'stages_ms': {name: round(time_s * 1e3, 3) for name, time_s in stages_s.items()},
                'skew_ms': round(view.skew_ns * 1e-6, 3) if view.modality == 'both' else None,
            }
        )
        extras = [('overlay', prediction.overlay), ('confidence', prediction.confidence)]
        made = [(name, image) for name, image in extras if image is not None]
        for name, image in made:
            outputs.publish(name, image, header)
        # Last, so that no raw image waits for it.
        for name, image in [('labels', prediction.labels), *made]:
            outputs.publish_compressed(name, image, header)
        self._health.timed({'extras': (time.monotonic_ns() - published_ns) * 1e-9})

    def _prepare(self, settings: Parameters) -> None:
        """Set the predictor up between two frames: a change has all of its values in one frame."""
        if settings is self._prepared:
            return
        self._predictor.thermal_range = thermal_range(settings)
        self._predictor.homography = homography(settings)
        self._prepared = settings

    def _report_stalls(self, states: Mapping[str, str]) -> None:
        """Count a pair's stalls; say where one begins and where it ends."""
        for which, state in states.items():
            if state != 'ok':
                self._health.stalled(f'{which}_{state}')
            if state == self._told[which]:
                continue
            self._told[which] = state
            if state == 'ok':
                self._warn(f'{which} ok', f'{which} is back')
            else:
                policy = getattr(self._settings, f'{which}_on_stall')
                self._warn(
                    f'{which} {state}', f'{which} stalls: {state} ({which}.on_stall: {policy})'
                )

    def _report_nan(self, labels: np.ndarray) -> None:
        """Count a result in which the network gave no number for some pixel."""
        if labels.max() == IGNORE_ID:
            self._health.not_a_number()
            share = np.count_nonzero(labels == IGNORE_ID) / labels.size
            self._warn(
                'nan',
                f'the network gave NaN for {share:.1%} of the pixels, which are published as '
                f'{IGNORE_ID}: is the checkpoint sound? In fp16 try precision bf16 or fp32',
            )

    def _failed(self, error: Exception) -> float:
        """A pair is lost; the thread goes on with the next, after the seconds returned."""
        if isinstance(error, SartmError):
            self._health.dropped('bad_frame', error=str(error))
            self._warn('bad_frame', f'frame dropped: {error}')
        elif is_out_of_memory(error):
            self._pause_s = next_pause_s(self._pause_s)
            self._health.dropped('out_of_memory', error=f'{type(error).__name__}: {error}')
            self._warn(
                'out_of_memory',
                f'frame dropped, out of memory: {error}. The next is tried in {self._pause_s:g} s; '
                'what else uses the device? Smaller images, precision fp16 or a smaller network '
                'need less',
            )
            free_memory(error)
            return self._pause_s
        else:
            text = ''.join(traceback.format_exception(error))
            self._health.dropped('failed', error=f'{type(error).__name__}: {error}')
            self._warn('failed', f'frame dropped, inference failed:\n{text}')
        return 0.0


def make_matcher(settings: Parameters) -> PairMatcher | MessageFilterMatcher:
    """The matcher that `sync.*` asks for. Raises SartmError where it is not installed."""
    if settings.sync_policy != 'nearest':
        return MessageFilterMatcher(
            settings.sync_policy, settings.sync_max_skew_s, settings.sync_queue_size
        )
    return pair_matcher(settings)


def pair_matcher(settings: Parameters) -> PairMatcher:
    """The matcher of `sync.policy` nearest."""
    matcher = PairMatcher(
        seconds_to_ns(settings.sync_max_skew_s),
        seconds_to_ns(settings.sync_max_wait_s),
        thermal_offset_ns=seconds_to_ns(settings.sync_thermal_offset_s),
        reuse_thermal=settings.sync_reuse_thermal,
        queue_size=settings.sync_queue_size,
    )
    update_matcher(matcher, settings)
    return matcher


def update_matcher(matcher: PairMatcher | MessageFilterMatcher, settings: Parameters) -> None:
    """Take over those settings of a matcher that may change at run time."""
    matcher.max_skew_ns = seconds_to_ns(settings.sync_max_skew_s)
    stall_after_ns = seconds_to_ns(settings.stall_after_s)
    # Those that are to be dropped come out as well: so the stall is known.
    matcher.rgb_alone_after_ns = stall_after_ns
    thermal_only = settings.rgb_on_stall == 'thermal_only'
    matcher.thermal_alone_after_ns = stall_after_ns if thermal_only else None


def thermal_range(settings: Parameters) -> Any:
    """`thermal.range` and what belongs to it, as a `sartm_model.data.transforms.ThermalRange`."""
    from sartm_model.data.transforms import ThermalRange

    return ThermalRange(
        settings.thermal_range,
        settings.thermal_low,
        settings.thermal_high,
        settings.thermal_smoothing_s,
    )


def _header(pair: Pair) -> Any:
    """The RGB message's header; the thermal one's, on the clock of RGB, where there is no RGB."""
    if pair.rgb is not None:
        return pair.rgb.header
    header = copy.deepcopy(pair.thermal.header)
    header.stamp.sec, header.stamp.nanosec = divmod(pair.stamp_ns, 1_000_000_000)
    return header
