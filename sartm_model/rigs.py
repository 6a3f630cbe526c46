"""Several predictors at once on one device, each in a process of its own, as two nodes are."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sartm_model.benchmark import images, peak_memory_mib, timed
from sartm_model.errors import SartmError
from sartm_model.predictor import Predictor


class Answer(NamedTuple):
    """What a rig says of the pairs it was asked for.

    Attributes:
        times_s: seconds that each pair took.
        peak_mib: the most memory it has held, see `benchmark.peak_memory_mib`.
    """

    times_s: list[float]
    peak_mib: float


def by_rigs(
    checkpoint: str | Path,
    counts: Sequence[int],
    shape: tuple[int, int],
    *,
    device: str = 'auto',
    seconds: float = 6.0,
    rounds: int = 3,
) -> list[dict[str, Any]]:
    """Run some of the rigs at once, each as fast as it can.

    Args:
        checkpoint: file, or 'demo'.
        counts: how many at once.
        shape: height and width of the images.
        device: as of `Predictor`.
        seconds: how long in each of the rounds; but at least one pair each.
        rounds: in each of which every count has its turn.

    Returns:
        for each count: rigs, pairs_per_s (of all together), and of each rig median_ms, p99_ms and
        peak_memory_mib.
    """
    times_s: dict[int, list[list[float]]] = {count: [[] for _ in range(count)] for count in counts}
    with running(max(counts), checkpoint, shape, device) as connections:
        ask(connections, seconds / 4)  # to warm up
        for _ in range(rounds):
            for count in counts:
                answers = ask(connections[:count], seconds)
                for times, answer in zip(times_s[count], answers, strict=True):
                    times += answer.times_s
        peaks_mib = [round(answer.peak_mib, 1) for answer in ask(connections, 0.0)]
    result = []
    for count, of_each in times_s.items():
        spreads_ms = np.array([np.percentile(times, (50, 99)) for times in of_each]) * 1e3
        result.append(
            {
                'rigs': count,
                'pairs_per_s': round(sum(len(times) / sum(times) for times in of_each), 2),
                'median_ms': spreads_ms[:, 0].round(1).tolist(),
                'p99_ms': spreads_ms[:, 1].round(1).tolist(),
                'peak_memory_mib': peaks_mib[:count],
            }
        )
    return result


@contextmanager
def running(
    count: int, checkpoint: str | Path, shape: tuple[int, int], device: str
) -> Iterator[list[Connection]]:
    """Rigs that have met their first pair and wait for `ask`; they end with the context."""
    context = multiprocessing.get_context('spawn')  # CUDA does not survive a fork
    connections: list[Connection] = []
    processes = []
    try:
        for _ in range(count):
            here, there = context.Pipe()
            arguments = (there, checkpoint, shape, device)
            processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            processes[-1].start()
            there.close()  # so that its end is noticed
            connections.append(here)
        ask(connections, 0.0)
        yield connections
    finally:
        for process in processes:
            process.terminate()
            process.join()


def ask(connections: Sequence[Connection], seconds: float) -> list[Answer]:
    """Have these rigs run pairs at once for so long, at least one each.

    Raises SartmError where one of them has ended.
    """
    try:
        for connection in connections:
            connection.send(seconds)
        return [connection.recv() for connection in connections]
    except (EOFError, OSError):
        raise SartmError('the process of a rig ended; what it printed says why') from None


def _serve(
    connection: Connection, checkpoint: str | Path, shape: tuple[int, int], device: str
) -> None:
    """A rig: answers each number of seconds with the pairs that it ran meanwhile."""
    predictor = Predictor(checkpoint, device=device)
    rgb, thermal = images(*shape)[0]
    while True:
        try:
            end_s = connection.recv() + time.monotonic()
        except EOFError:
            return
        times_s = [timed(lambda: predictor.predict(rgb, thermal))]
        while time.monotonic() < end_s:
            times_s.append(timed(lambda: predictor.predict(rgb, thermal)))
        connection.send(Answer(times_s, peak_memory_mib(predictor.device)))
