"""Times the stages of a prediction, also on a GPU that runs behind the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

StageCallback = Callable[[str], None]
"""Called at the end of a stage with the stage's name."""


class StageClock:
    """Measures how long the stages of a prediction take, without waiting for any of them.

    On the host a stage has ended when its call returns. On a GPU the end of a stage is recorded by
    an event on the current stream.

    Args:
        cuda_device: the device that does the work; None where the host does it.
    """

    def __init__(self, cuda_device: torch.device | None = None) -> None:
        self._cuda_device = cuda_device
        self._start_s = time.perf_counter()
        self._ends = [('', self._now())]

    def end_stage(self, stage: str) -> None:
        """End the stage of that name, which began where the previous one ended."""
        self._ends.append((stage, self._now()))

    def stages_s(self, last: str) -> dict[str, float]:
        """End the stage `last` and return the seconds of each stage, in order.

        Call it when the results are on the host. The last stage is given the time since the clock
        was made that no other stage has taken.
        """
        total_s = time.perf_counter() - self._start_s
        result = {
            stage: _seconds_between(start, end) for (_, start), (stage, end) in pairwise(self._ends)
        }
        return result | {last: max(total_s - sum(result.values()), 0.0)}

    def _now(self) -> float | torch.cuda.Event:
        if self._cuda_device is None:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda_device))
        return event


def _seconds_between(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    end.synchronize()  # returns at once when the results are on the host
    return start.elapsed_time(end) * 1e-3
