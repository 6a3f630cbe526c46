"""Computes the figures of `ros_path` from the records of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.ros_path_nodes import Record, Settings

SLACK_S = 0.02
"""Time for waking threads, in addition to one inference and one interval of the cameras."""


@dataclass
class Round:
    """The records of one round.

    Attributes:
        sent: stamps of the pairs, which are the monotonic times in ns at which they were published.
        received: monotonic time in ns at which the listener received the labels, by stamp.
        record: the node's record.
        cpu: processor time of the node's process per second.
        repeated: number of labels whose stamp had been received before.
    """

    sent: list[int]
    received: dict[int, int]
    record: Record
    cpu: float
    repeated: int = 0


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return the figures of the rounds of one node, times in ms.

    `added` is the time from the arrival of the pair's later message in the node's callback until
    the labels are published; `end_to_end` that from the cameras to the listener. Each of the
    `pairs` sent is `received` or lost: `lost_inbound` did not reach the node, `unserved` reached it
    and gave no labels, `lost_outbound` gave labels that did not reach the listener. `repeated`
    counts labels received twice.
    """
    added, end_to_end = [], []
    counts = dict.fromkeys(
        ('pairs', 'received', 'lost_inbound', 'unserved', 'lost_outbound', 'repeated'), 0
    )
    for one in rounds:
        record = one.record
        counts['pairs'] += len(one.sent)
        counts['repeated'] += one.repeated
        for stamp in one.sent:
            if stamp in record.published:
                added.append(record.published[stamp] - record.arrived[stamp])
            if stamp in one.received:
                end_to_end.append(one.received[stamp] - stamp)
                counts['received'] += 1
            elif stamp in record.published:
                counts['lost_outbound'] += 1
            elif stamp in record.arrived:
                counts['unserved'] += 1
            else:
                counts['lost_inbound'] += 1
    return {
        **counts,
        'added_ms': _spread(added),
        'end_to_end_ms': _spread(end_to_end),
        'cpu_percent': round(100 * float(np.mean([one.cpu for one in rounds])), 1),
    }


def overload(rounds: Sequence[Round], settings: Settings) -> dict[str, Any]:
    """Return the figures of rounds in which the network is slower than the cameras.

    `passed_over` is, for each pair served but the first, the number of newer pairs that the cameras
    had sent when the node became free (when it published the labels before), including those in
    transit. `not_newest` counts the pairs served although a newer one was waiting in the node.
    `within` is whether `added` stayed below one inference, one interval and `SLACK_S`.
    """
    passed_over, not_newest = [], 0
    for one in rounds:
        for before, stamp in pairwise(served(one)):
            free_ns = one.record.published[before]
            passed_over.append(sum(stamp < other < free_ns for other in one.sent))
            not_newest += bool(waiting_newer(one, stamp, free_ns))
    limit_ms = (settings.network_s + 1 / settings.rate_hz + SLACK_S) * 1e3
    added_ms = summary(rounds)['added_ms']
    return {
        'limit_ms': round(limit_ms, 1),
        'within': bool(added_ms) and added_ms['max'] <= limit_ms,
        'passed_over_median': float(np.median(passed_over)) if passed_over else None,
        'passed_over_max': max(passed_over, default=None),
        'not_newest': not_newest,
    }


def served(one: Round) -> list[int]:
    """Return the stamps of the pairs whose labels were published, in the order of publishing."""
    published = one.record.published
    return sorted((stamp for stamp in one.sent if stamp in published), key=lambda s: published[s])


def waiting_newer(one: Round, stamp: int, free_ns: int) -> list[int]:
    """Return the stamps newer than `stamp` that were given to the inference thread by then."""
    offered = one.record.offered
    return [s for s in one.sent if s > stamp and s in offered and offered[s] < free_ns]


def _spread(times_ns: Sequence[int]) -> dict[str, float]:
    if not times_ns:
        return {}
    median, p99, most = (np.percentile(times_ns, (50, 99, 100)) * 1e-6).tolist()
    return {'median': round(median, 2), 'p99': round(p99, 2), 'max': round(most, 2)}
