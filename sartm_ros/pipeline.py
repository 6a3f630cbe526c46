"""The way of a frame through the node, from two message streams to a prediction. No ROS import.

matcher -> slot for one pair -> inference thread: views of the messages -> network -> `publish`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_ros.filters import MessageFilterMatcher
from sartm_ros.health import Health
from sartm_ros.images import stamp_ns, to_rgb, to_thermal
from sartm_ros.matcher import Pair, PairMatcher
from sartm_ros.parameters import Parameters, seconds_to_ns
from sartm_ros.worker import LatestWorker


class Pipeline:
    """Pairs messages, and predicts and publishes in a thread of its own.

    `add` and `poll` are called by one thread and never wait for the network.

    Args:
        predictor: a `sartm_model.predictor.Predictor`.
        settings: as they are now; see `apply`.
        health: what is counted.
        outputs: a `sartm_ros.outputs.Outputs`; used by the thread.
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
        self._settings = settings
        self._health = health
        self._outputs = outputs
        self._warn = warn
        self._matcher = make_matcher(settings)
        self._worker: LatestWorker[Pair] = LatestWorker(self._infer, self._failed, 'inference')
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
        self._matcher.max_skew_ns = seconds_to_ns(settings.sync_max_skew_s)

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
            if self._worker.put(pair):
                self._health.dropped('replaced')

    def _infer(self, pair: Pair) -> None:
        outputs, header = self._outputs, pair.rgb.header
        prediction = self._predictor.predict(
            _read('RGB', to_rgb, pair.rgb),
            _read('thermal', to_thermal, pair.thermal),
            confidence=outputs.wanted('confidence'),
            overlay=outputs.wanted('overlay'),
            overlay_opacity=self._settings.overlay_opacity,
        )
        outputs.publish('labels', prediction.labels, header)
        self._health.published((time.monotonic_ns() - pair.arrival_ns) * 1e-9)
        extras = [('overlay', prediction.overlay), ('confidence', prediction.confidence)]
        made = [(name, image) for name, image in extras if image is not None]
        for name, image in made:
            outputs.publish(name, image, header)
        # Last, so that no raw image waits for it.
        for name, image in [('labels', prediction.labels), *made]:
            outputs.publish_compressed(name, image, header)

    def _failed(self, error: Exception) -> None:
        """A pair is lost; the thread goes on with the next."""
        if isinstance(error, SartmError):
            self._health.dropped('bad_frame', error=str(error))
            self._warn('bad_frame', f'frame dropped: {error}')
        else:
            text = ''.join(traceback.format_exception(error))
            self._health.dropped('failed', error=f'{type(error).__name__}: {error}')
            self._warn('failed', f'frame dropped, inference failed:\n{text}')


def make_matcher(settings: Parameters) -> PairMatcher | MessageFilterMatcher:
    """The matcher that `sync.*` asks for. Raises SartmError where it is not installed."""
    if settings.sync_policy != 'nearest':
        return MessageFilterMatcher(
            settings.sync_policy, settings.sync_max_skew_s, settings.sync_queue_size
        )
    return PairMatcher(
        seconds_to_ns(settings.sync_max_skew_s),
        seconds_to_ns(settings.sync_max_wait_s),
        thermal_offset_ns=seconds_to_ns(settings.sync_thermal_offset_s),
        reuse_thermal=settings.sync_reuse_thermal,
        queue_size=settings.sync_queue_size,
    )


def _read(name: str, convert: Callable[[Any], np.ndarray], msg: Any) -> np.ndarray:
    try:
        return convert(msg)
    except SartmError as error:
        raise SartmError(f'{name}: {error}') from error
