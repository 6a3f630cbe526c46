"""A timer that fires when the oldest waiting image has waited long enough."""

from __future__ import annotations

import time
from typing import Any

from rclpy.clock import Clock

from sartm_ros.node.frame_pipeline import FramePipeline

SLACK_NS = 1_000_000
"""Added to the time at which the timer fires, so that the deadline has passed by then."""


class DeadlineTimer:
    """Calls `poll` of a pipeline at its deadlines, in the executor's thread.

    Args:
        node: creates the timer.
        clock: a steady one, because simulated time may stand still.
        pipeline: the pipeline.
    """

    def __init__(self, node: Any, clock: Clock, pipeline: FramePipeline) -> None:
        self._node = node
        self._pipeline = pipeline
        self._due_ns: int | None = None
        self._timer: Any = node.create_timer(1.0, self._on_deadline, clock=clock)
        self._timer.cancel()

    def schedule(self) -> None:
        """Set the timer to the pipeline's deadline.

        A timer that is due earlier is left alone and is set again when it fires: setting it for
        each pair costs more than a few callbacks that find nothing to do.
        """
        deadline_ns = self._pipeline.deadline_ns
        if deadline_ns is None or (self._due_ns is not None and self._due_ns <= deadline_ns):
            return
        self._due_ns = deadline_ns
        wait_ns = max(deadline_ns - time.monotonic_ns(), 0)
        self._timer.timer_period_ns = wait_ns + SLACK_NS
        self._timer.reset()

    def close(self) -> None:
        """Destroy the timer."""
        self._node.destroy_timer(self._timer)
        self._timer = None

    def _on_deadline(self) -> None:
        if self._timer is None:  # the executor had taken the event already
            return
        self._pipeline.poll()
        self._due_ns = None
        self._timer.cancel()
        self.schedule()
