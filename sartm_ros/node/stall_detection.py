"""Whether thermal images still tell what the camera sees. No ROS import.

An uncooled camera closes its shutter every few minutes. Its driver then repeats the last image with
new stamps ('frozen'), sends images of the shutter ('flat'), or sends nothing ('gap').
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_ros.messages.images import to_rgb, to_thermal
from sartm_ros.node.parameters import Parameters, seconds_to_ns
from sartm_ros.sync.pair_matcher import Pair

STATES = ('ok', 'frozen', 'flat', 'gap')

_SUBSET = (slice(None, None, 16), slice(None, None, 16))
"""Pixels that are compared first: two live images differ there already."""


class StallDetector:
    """Looks at each thermal image once and remembers the last good one.

    Not thread-safe: the inference thread has it.

    Attributes:
        state: one of `STATES`, as of the last `look` or `miss`.
    """

    def __init__(self) -> None:
        self.state = 'ok'
        self._last: tuple[np.ndarray, int] | None = None
        self._since_ns = 0  # stamp of the first image that was like the last
        self._good: tuple[np.ndarray, int] | None = None

    def look(self, image: np.ndarray, stamp_ns: int, stall_after_ns: int) -> str:
        """The state with this image.

        An image is frozen once it has not changed for `stall_after_ns` of the stamps: some cameras
        send each image two or three times. A flat one is known at once.

        Args:
            image: counts uint8 or uint16 `[h, w]`; kept as it is.
            stamp_ns: its stamp; the same one again is the same image again.
            stall_after_ns: see above.
        """
        last = self._last
        if last is None or stamp_ns < last[1] or not _same(image, last[0]):
            self._since_ns = stamp_ns
        self._last = image, stamp_ns
        if is_flat(image):
            self.state = 'flat'
        elif stamp_ns - self._since_ns >= max(stall_after_ns, 1):
            self.state = 'frozen'
        else:
            self.state = 'ok'
            self._good = image, self._since_ns
        return self.state

    def miss(self) -> str:
        """The state where no image has come."""
        self.state = 'gap'
        return self.state

    def held(self, stamp_ns: int, at_most_ns: int) -> tuple[np.ndarray, int] | None:
        """The last good image and its stamp, if it is no more than `at_most_ns` from `stamp_ns`."""
        if self._good is None or abs(stamp_ns - self._good[1]) > at_most_ns:
            return None
        return self._good


@dataclass(frozen=True)
class View:
    """What the network gets to see of a pair.

    Attributes:
        rgb: uint8 `[H, W, 3]`, or None.
        thermal: uint8 or uint16 `[h, w]`, or None while it stalls.
        skew_ns: stamp of `thermal` minus that of the pair; 0 where one of them is absent.
        states: one of `STATES` each for 'rgb' and 'thermal'.
        modality: 'both', 'rgb' or 'thermal'; None where the pair is to be dropped.
    """

    rgb: np.ndarray | None
    thermal: np.ndarray | None
    skew_ns: int
    states: Mapping[str, str]
    modality: str | None


class StallPolicy:
    """Reads the images of each pair and leaves out what `*.on_stall` says.

    Not thread-safe, and each pair is looked at once, in order: see `StallDetector`.
    """

    def __init__(self) -> None:
        self._watch = StallDetector()

    def view(self, pair: Pair, settings: Parameters) -> View:
        """Raises SartmError where an image cannot be read."""
        rgb = None if pair.rgb is None else _read('RGB', to_rgb, pair.rgb)
        thermal, skew_ns = self._thermal(pair, settings)
        states = {'rgb': 'gap' if rgb is None else 'ok', 'thermal': self._watch.state}
        modality: str | None = 'thermal' if rgb is None else 'rgb' if thermal is None else 'both'
        if thermal is None and (rgb is None or settings.thermal_on_stall == 'drop'):
            modality = None
        return View(rgb, thermal, skew_ns if modality == 'both' else 0, states, modality)

    def _thermal(self, pair: Pair, settings: Parameters) -> tuple[np.ndarray | None, int]:
        """The thermal image to be used, None while it stalls, and its stamp minus the pair's."""
        if pair.thermal is None:
            self._watch.miss()
        else:
            image = _read('thermal', to_thermal, pair.thermal)
            stamp = pair.stamp_ns + pair.skew_ns
            if self._watch.look(image, stamp, seconds_to_ns(settings.stall_after_s)) == 'ok':
                return image, pair.skew_ns
        if settings.thermal_on_stall == 'hold':
            at_most_ns = seconds_to_ns(settings.thermal_hold_at_most_s)
            held = self._watch.held(pair.stamp_ns, at_most_ns)
            if held is not None:
                return held[0], held[1] - pair.stamp_ns
        return None, 0


def is_flat(image: np.ndarray) -> bool:
    """Whether `scale_thermal` would centre the image instead of stretching its range.

    Judged by a grid of about sixty rows, which takes a fraction of the time.
    """
    from sartm_model.data.transforms import PERCENTILES, min_span  # imports torch

    step = max(1, min(image.shape) // 60)
    # np.percentile takes several times as long for so few numbers; of small integers 'stable' is a
    # radix sort.
    ordered = np.sort(image[::step, ::step], axis=None, kind='stable')
    low, high = (_quantile(ordered, share) for share in PERCENTILES)
    return high - low < min_span(image.dtype == np.uint8)


def _quantile(ordered: np.ndarray, share: float) -> float:
    """Of sorted numbers, interpolated between the two that it lies between."""
    at, part = divmod(share * (ordered.size - 1), 1.0)
    below, above = (float(ordered[int(i)]) for i in (at, min(at + 1, ordered.size - 1)))
    return below + part * (above - below)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a[_SUBSET], b[_SUBSET]) and np.array_equal(a, b)


def _read(name: str, convert: Callable[[Any], np.ndarray], msg: Any) -> np.ndarray:
    try:
        return convert(msg)
    except SartmError as error:
        raise SartmError(f'{name}: {error}') from error
