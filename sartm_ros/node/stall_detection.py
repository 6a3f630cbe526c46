"""Detects when thermal images no longer show the scene, or cannot be read. No ROS import.

An uncooled thermal camera closes its shutter every few minutes. Its driver then repeats the last
image with new stamps ('frozen', see `frozen_detection`), sends images of the shutter ('flat'), or
sends nothing ('gap').
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities import describe
from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_range import PERCENTILES
from sartm_model.modalities.thermal_settings import ThermalSettings, crop_image
from sartm_model.modalities.thermal_valid import invalid_pixels, min_span
from sartm_model.utils.percentiles import percentiles
from sartm_ros.messages.images import to_rgb, to_thermal
from sartm_ros.node.frozen_detection import FrozenDetector
from sartm_ros.node.parameters import Parameters, seconds_to_ns, thermal_settings
from sartm_ros.sync.pair_matcher import Pair

SELECTIONS = ('both', 'rgb', 'thermal')
"""What the network is given of a pair: both images, or one of them alone."""

DESCRIPTIONS = {name: describe(name, ('rgb', 'thermal')) for name in SELECTIONS}
"""Text for each selection, for messages and reports."""

STATES = ('ok', 'frozen', 'flat', 'gap', 'unreadable', 'off')
"""States of a camera; it is off if its topic is empty."""

DEFAULTS = ThermalSettings()


class StallDetector:
    """Classifies each thermal image and remembers the last good one. Not thread-safe.

    Attributes:
        state: one of `STATES`, after the last call of `update` or `mark_missing`.
        invalid_share: share of the pixels of the last image, after the crop, that see nothing.
    """

    def __init__(self) -> None:
        self.state = 'ok'
        self.invalid_share = 0.0
        self._frozen = FrozenDetector()
        self._last_good: tuple[np.ndarray, int] | None = None

    def update(
        self,
        image: np.ndarray,
        stamp_ns: int,
        stall_after_ns: int,
        *,
        rgb: np.ndarray | None = None,
        settings: ThermalSettings = DEFAULTS,
        detect_frozen: bool = True,
    ) -> str:
        """Return the state after a new image.

        Args:
            image: counts uint8 or uint16 `[h, w]`, not copied. To be called once for each image.
            stamp_ns: its stamp in nanoseconds.
            stall_after_ns: how long the image has to stay until the state is 'frozen', by the
                stamps; see `frozen_detection`. It becomes 'flat' at once.
            rgb: the RGB image of the pair, uint8 `[H, W, 3]`, or None.
            settings: the crop and the counts that mean 'no measurement'.
            detect_frozen: whether 'frozen' is looked for.

        Raises:
            SartmError: the crop leaves nothing.
        """
        seen = crop_image(image, settings.crop)
        invalid = invalid_pixels(to_counts(seen), seen.dtype == np.uint8, settings.invalid)
        self.invalid_share = float(invalid.mean())
        frozen = self._frozen.update(seen, rgb, stamp_ns, stall_after_ns)
        if is_flat(seen, invalid):
            self.state = 'flat'
        elif frozen and detect_frozen:
            self.state = 'frozen'
        else:
            self.state = 'ok'
            self._last_good = image, self._frozen.unchanged_since_ns
        return self.state

    def mark_missing(self, state: str = 'gap') -> str:
        """Return the state after a pair without a thermal image: 'gap' or 'unreadable'."""
        self.state = state
        return self.state

    def last_good(self, stamp_ns: int, max_age_ns: int) -> tuple[np.ndarray, int] | None:
        """Return the last good image and its stamp, if at most `max_age_ns` from `stamp_ns`."""
        if self._last_good is None or abs(stamp_ns - self._last_good[1]) > max_age_ns:
            return None
        return self._last_good


@dataclass(frozen=True)
class UsableImages:
    """The images of a pair that the network is given.

    Attributes:
        rgb: uint8 `[H, W, 3]`, or None in a gap of RGB.
        thermal: uint8 or uint16 `[h, w]`, or None while thermal stalls.
        skew_ns: stamp of `thermal` minus that of the pair; 0 if one image is missing.
        states: one of `STATES` for each of 'rgb' and 'thermal'.
        modality: one of `SELECTIONS`, or None if the pair is to be dropped.
        error: why the thermal message cannot be read; None if it could.
        invalid_share: share of the pixels of the pair's thermal image that see nothing.
    """

    rgb: np.ndarray | None
    thermal: np.ndarray | None
    skew_ns: int
    states: Mapping[str, str]
    modality: str | None
    error: SartmError | None = None
    invalid_share: float = 0.0


class StallPolicy:
    """Reads the images of each pair, and applies `rgb.on_stall` and `thermal.on_stall`.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._detector = StallDetector()

    def usable_images(self, pair: Pair, settings: Parameters) -> UsableImages:
        """Return what the network is given of a pair; to be called once for each pair, in order.

        Labels come from RGB alone, or not at all, while thermal messages cannot be read, as
        `thermal.on_stall` says.

        Raises:
            SartmError: the RGB message cannot be read, or the thermal one where the pair is dropped
                without it.
        """
        rgb = None if pair.rgb is None else _read('RGB', to_rgb, pair.rgb)
        image, error = None, None
        if pair.thermal is not None:
            try:
                convert = partial(to_thermal, shift=settings.thermal_shift)
                image = _read('thermal', convert, pair.thermal)
                crop_image(image, thermal_settings(settings).crop)
            except SartmError as failure:
                image, error = None, failure
        thermal, skew_ns = self._thermal(pair, image, rgb, settings)
        states = {'rgb': 'gap' if rgb is None else 'ok', 'thermal': self._detector.state}
        if not settings.rgb_topic:
            states['rgb'] = 'off'
        if not settings.thermal_topic:
            states['thermal'] = 'off'
        modality: str | None = 'thermal' if rgb is None else 'rgb' if thermal is None else 'both'
        drops = settings.thermal_on_stall == 'drop' and states['thermal'] != 'off'
        if thermal is None and (rgb is None or drops):
            if error is not None:
                raise error
            modality = None
        skew_ns = skew_ns if modality == 'both' else 0
        share = 0.0 if image is None else self._detector.invalid_share
        return UsableImages(rgb, thermal, skew_ns, states, modality, error, share)

    def _thermal(
        self, pair: Pair, image: np.ndarray | None, rgb: np.ndarray | None, settings: Parameters
    ) -> tuple[np.ndarray | None, int]:
        """Return the thermal image, or None while it stalls, and its stamp minus the pair's."""
        if image is None:
            self._detector.mark_missing('gap' if pair.thermal is None else 'unreadable')
        else:
            state = self._detector.update(
                image,
                pair.stamp_ns + pair.skew_ns,
                seconds_to_ns(settings.stall_after_s),
                rgb=rgb,
                settings=thermal_settings(settings),
                detect_frozen=settings.thermal_detect_frozen,
            )
            if state == 'ok':
                return image, pair.skew_ns
        if settings.thermal_on_stall == 'hold':
            max_age_ns = seconds_to_ns(settings.thermal_hold_at_most_s)
            last_good = self._detector.last_good(pair.stamp_ns, max_age_ns)
            if last_good is not None:
                return last_good[0], last_good[1] - pair.stamp_ns
        return None, 0


def is_flat(image: np.ndarray, invalid: np.ndarray) -> bool:
    """Return whether the image has less contrast than the least that the preprocessing stretches.

    Only a grid of about sixty rows is examined, which takes a fraction of the time.

    Args:
        image: uint8 or uint16 `[h, w]`.
        invalid: bool `[h, w]`, of the pixels that see nothing.
    """
    step = max(1, min(image.shape) // 60)
    valid = image[::step, ::step][~invalid[::step, ::step]]
    if not valid.size:
        return True
    low, high = percentiles(valid, PERCENTILES)
    return high - low < min_span(image.dtype == np.uint8)


def _read(name: str, convert: Callable[[Any], np.ndarray], msg: Any) -> np.ndarray:
    try:
        return convert(msg)
    except SartmError as error:
        raise SartmError(f'{name}: {error}') from error
