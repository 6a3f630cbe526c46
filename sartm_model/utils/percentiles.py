"""Percentiles of an image on the host, without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percentiles(image: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    """Return the values below which the given shares of the pixels lie.

    Gives what `numpy.quantile` gives with its default, linear interpolation. It is several times
    faster on uint8 and uint16, for which numpy's stable sort is a radix sort.

    Args:
        image: numbers of any shape, at least one.
        shares: from 0 to 1.
    """
    ordered = np.sort(image, axis=None, kind='stable')
    last = ordered.size - 1
    found = []
    for share in shares:
        rank = share * last
        below = int(rank)
        low, high = float(ordered[below]), float(ordered[min(below + 1, last)])
        found.append(low + (rank - below) * (high - low))
    return tuple(found)
