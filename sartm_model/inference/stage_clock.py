"""Where the time of a prediction goes, on a device that may still be at work behind Python."""

from __future__ import annotations

import time
from itertools import pairwise

import torch


class StageClock:
    """Tells how long the stages of one piece of work take, and waits for none of them.

    A GPU is behind the Python code that drives it, so the ends of its stages are marked on its own
    time line, by events. On the CPU the work is done when a call returns.

    Args:
        device: 'cuda' or 'cpu' device that does the work, on its current stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun_s = time.perf_counter()
        self._marks = [('', self._now())]

    def mark(self, stage: str) -> None:
        """The stage so called ends here; it began where the last one ended."""
        self._marks.append((stage, self._now()))

    def seconds(self, last: str) -> dict[str, float]:
        """Seconds by stage, in order; what no marked one took is that of `last`, which ends now.

        To be called when a download has waited for the device.
        """
        total_s = time.perf_counter() - self._begun_s
        result = {stage: _between(old, new) for (_, old), (stage, new) in pairwise(self._marks)}
        return result | {last: max(total_s - sum(result.values()), 0.0)}

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _between(old: float | torch.cuda.Event, new: float | torch.cuda.Event) -> float:
    if isinstance(old, float) or isinstance(new, float):
        return float(new) - float(old)  # type: ignore[arg-type]
    new.synchronize()  # after a download it has long passed
    return old.elapsed_time(new) * 1e-3
