"""What is noticed in the images and labels of each pair: stalls, blind pixels, NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sartm_model.labels import IGNORE_ID
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_settings import telemetry_rows
from sartm_ros.diagnosis.health import Health
from sartm_ros.diagnosis.judgement import MOSTLY_INVALID, describe_invalid
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.stall_detection import UsableImages


class Observations:
    """Counts and logs what is noticed in pairs; the inference thread alone calls the methods.

    Args:
        health: counts.
        warn: called with a key and a text; logs the text, at most once in a while for each key.
    """

    def __init__(self, health: Health, warn: Callable[[str, str], None]) -> None:
        self._health = health
        self._warn = warn
        self._logged_states: dict[str, str] = {}

    def record_images(self, images: UsableImages, parameters: Parameters) -> None:
        """Record the stalls of a pair and what is wrong with the image of its second camera."""
        modality = MODALITIES[parameters.x_modality]
        self._record_stalls(images.states, parameters)
        if images.error is not None:
            self._health.record_error(str(images.error))
            self._warn(f'{modality.name} unused', f'{modality.title} is not used: {images.error}')
        if modality.has_range:
            self._record_thermal(images, parameters)

    def record_labels(self, labels: np.ndarray) -> None:
        """Count a result in which the network gave NaN for some pixels."""
        if labels.max() == IGNORE_ID:
            self._health.record_nan()
            share = np.count_nonzero(labels == IGNORE_ID) / labels.size
            self._warn(
                'nan',
                f'the network gave NaN for {share:.1%} of the pixels, which are published as '
                f'{IGNORE_ID}: is the checkpoint intact? In fp16 try precision bf16 or fp32',
            )

    def _record_stalls(self, states: Mapping[str, str], parameters: Parameters) -> None:
        """Count the stalls of a pair, and log where a stall begins or ends."""
        known = {camera: state for camera, state in states.items() if state != 'off'}
        self._health.record_stalls(
            *(f'{camera}_{state}' for camera, state in known.items() if state != 'ok')
        )
        for camera, state in known.items():
            if state == self._logged_states.get(camera, 'ok'):
                continue
            self._logged_states[camera] = state
            if state == 'ok':
                self._warn(f'{camera} ok', f'{camera} is back')
            else:
                of_rgb = camera == 'rgb'
                policy = parameters.rgb_on_stall if of_rgb else parameters.thermal_on_stall
                parameter = f'{"rgb" if of_rgb else "thermal"}.on_stall'
                self._warn(f'{camera} {state}', f'{camera} stalls: {state} ({parameter}: {policy})')

    def _record_thermal(self, images: UsableImages, parameters: Parameters) -> None:
        """Record what is wrong with a thermal image or its range, and hint at rows of telemetry.

        An image that sees nothing at all is flat and not given to the network.
        """
        if images.states[parameters.x_modality] in ('ok', 'frozen', 'flat'):
            self._health.record_thermal(images.invalid_share, images.range_warning)
            if images.invalid_share >= MOSTLY_INVALID:
                self._warn('invalid', describe_invalid(images.invalid_share))
            if images.range_warning:
                self._warn('range', images.range_warning)
        if images.x is None or any(parameters.thermal_crop):
            return
        rows = telemetry_rows(images.x)
        if rows:
            height, width = images.x.shape
            self._warn(
                'telemetry',
                f'thermal images are {width}x{height}, as of a camera that adds {rows} rows of '
                f'telemetry; set thermal.crop to [0, 0, {rows}, 0], or to [{rows}, 0, 0, 0] if '
                'they are at the top',
            )
