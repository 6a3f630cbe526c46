"""Detects when X, the second camera, no longer shows the scene, or cannot be read. No ROS import.

An uncooled thermal camera closes its shutter every few minutes. Its driver then repeats the last
image with new stamps ('frozen', see `frozen_detection`), sends images of the shutter ('flat'), or
sends nothing ('gap'). Drivers of other cameras do so where they hang, or where the lens is covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_contrast import judge_contrast
from sartm_model.modalities.thermal_settings import ThermalSettings, crop_image, cropped_size
from sartm_model.modalities.thermal_valid import invalid_pixels
from sartm_ros.messages.images import to_modality
from sartm_ros.settings.cameras import camera_topics
from sartm_ros.settings.parameters import Parameters, seconds_to_ns, thermal_settings
from sartm_ros.sync.frozen_detection import FrozenDetector
from sartm_ros.sync.pair_matcher import Pair

FAULTS = ('frozen', 'flat', 'gap', 'unreadable')
"""What may be wrong with X; of RGB only 'gap' is noticed."""

STATES = ('ok', *FAULTS, 'off')
"""States of a camera; it is off if its topic is empty."""

DEFAULTS = ThermalSettings()


class StallDetector:
    """Classifies each image of X and remembers the last good one. Not thread-safe.

    Args:
        modality: of the images.

    Attributes:
        invalid_share: share of the pixels of the last thermal image, after the crop, that see
            nothing.
        range_warning: the warning of `judge_contrast` for the last thermal image, or ''.
    """

    def __init__(self, modality: str) -> None:
        self._modality = MODALITIES[modality]
        self.invalid_share = 0.0
        self.range_warning = ''
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
        """Return the state of X, one of `STATES`, after a new image.

        Args:
            image: the raw image of the next pair, not copied. One image may serve several pairs.
            stamp_ns: its stamp in nanoseconds.
            stall_after_ns: how long the image has to stay until the state is 'frozen', by the
                stamps; see `frozen_detection`. It becomes 'flat' at once.
            rgb: the RGB image of the pair, uint8 `[H, W, 3]`, or None.
            settings: the crop, the range and the counts that mean 'no measurement', of a thermal
                image.
            detect_frozen: whether 'frozen' is looked for.

        Raises:
            SartmError: the crop leaves nothing.
        """
        seen = image
        if self._modality.has_range:
            seen = crop_image(image, settings.crop)
            invalid = invalid_pixels(to_counts(seen), seen.dtype == np.uint8, settings.invalid)
            self.invalid_share = float(invalid.mean())
            flat, self.range_warning = judge_contrast(seen, invalid, settings)
        else:
            flat = not self._modality.may_be_uniform and is_uniform(seen)
        frozen = self._frozen.update(seen, rgb, stamp_ns, stall_after_ns)
        if flat:
            return 'flat'
        if frozen and detect_frozen:
            return 'frozen'
        self._last_good = image, self._frozen.unchanged_since_ns
        return 'ok'

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
        x: raw image of the second camera, or None while it stalls.
        skew_ns: stamp of `x` minus that of the pair; 0 if one image is missing.
        states: one of `STATES` for each camera.
        modality: one of `cameras.selections`, or None if the pair is to be dropped.
        error: why the message of X cannot be read; None if it could.
        invalid_share: share of the pixels of the pair's thermal image that see nothing.
        range_warning: why the network sees no contrast in that image, see `judge_contrast`, or ''.
    """

    rgb: np.ndarray | None
    x: np.ndarray | None
    skew_ns: int
    states: Mapping[str, str]
    modality: str | None
    error: SartmError | None = None
    invalid_share: float = 0.0
    range_warning: str = ''


class StallPolicy:
    """Reads the images of each pair, and applies `rgb.on_stall` and `thermal.on_stall`.

    Not thread-safe.

    Args:
        x_modality: of the second camera.
    """

    def __init__(self, x_modality: str) -> None:
        self._x_modality = x_modality
        self._detector = StallDetector(x_modality)

    def usable_images(self, pair: Pair, parameters: Parameters) -> UsableImages:
        """Return what the network is given of a pair; to be called once for each pair, in order.

        Labels come from RGB alone, or not at all, while messages of X cannot be read, as
        `thermal.on_stall` says.

        Raises:
            SartmError: the RGB message cannot be read, or that of X where the pair is dropped
                without it.
        """
        thermal = thermal_settings(parameters)
        rgb = None if pair.rgb is None else _read('rgb', pair.rgb)
        image, error = None, None
        if pair.x is not None:
            try:
                image = _read(self._x_modality, pair.x, parameters.thermal_shift)
                if MODALITIES[self._x_modality].has_range:
                    # An image of which the crop leaves nothing counts as one that cannot be read.
                    # That is all that is asked here: the detector and the predictor each crop the
                    # whole image.
                    cropped_size((image.shape[0], image.shape[1]), thermal.crop)
            except SartmError as failure:
                image, error = None, failure
        x, skew_ns, state = self._usable_x(pair, image, rgb, parameters, thermal)
        states = {'rgb': 'gap' if rgb is None else 'ok', self._x_modality: state}
        states |= {name: 'off' for name, topic in camera_topics(parameters).items() if not topic}
        modality: str | None = self._x_modality if rgb is None else 'rgb' if x is None else 'both'
        drops = parameters.thermal_on_stall == 'drop' and states[self._x_modality] != 'off'
        if x is None and (rgb is None or drops):
            if error is not None:
                raise error
            modality = None
        skew_ns = skew_ns if modality == 'both' else 0
        share, warning = 0.0, ''
        if image is not None:
            share, warning = self._detector.invalid_share, self._detector.range_warning
        return UsableImages(rgb, x, skew_ns, states, modality, error, share, warning)

    def _usable_x(
        self,
        pair: Pair,
        image: np.ndarray | None,
        rgb: np.ndarray | None,
        parameters: Parameters,
        thermal: ThermalSettings,
    ) -> tuple[np.ndarray | None, int, str]:
        """Return the image of X, or None while it stalls, its stamp minus the pair's, its state."""
        if image is None:
            state = 'gap' if pair.x is None else 'unreadable'
        else:
            state = self._detector.update(
                image,
                pair.stamp_ns + pair.skew_ns,
                seconds_to_ns(parameters.stall_after_s),
                rgb=rgb,
                settings=thermal,
                detect_frozen=parameters.thermal_detect_frozen,
            )
            if state == 'ok':
                return image, pair.skew_ns, state
        if parameters.thermal_on_stall == 'hold':
            max_age_ns = seconds_to_ns(parameters.thermal_hold_at_most_s)
            last_good = self._detector.last_good(pair.stamp_ns, max_age_ns)
            if last_good is not None:
                return last_good[0], last_good[1] - pair.stamp_ns, state
        return None, 0, state


def is_uniform(image: np.ndarray) -> bool:
    """Return whether all pixels of an image `[H, W, ...]` are equal."""
    first = image[0, 0]
    # A grid of pixels is enough for nearly every image that is not uniform.
    return bool((image[::16, ::16] == first).all() and (image == first).all())


def _read(camera: str, msg: Any, shift: int = 0) -> np.ndarray:
    try:
        return to_modality(msg, camera, shift)
    except SartmError as error:
        raise SartmError(f'{MODALITIES[camera].title}: {error}') from error
