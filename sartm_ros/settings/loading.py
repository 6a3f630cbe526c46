"""Loads the network as the parameters ask for."""

from __future__ import annotations

import os
import time
from typing import Any

from sartm_ros.settings.cameras import (
    camera_topics,
    forgotten_modality,
    topic_parameter,
    without_unused_topics,
)
from sartm_ros.settings.parameters import FIELDS, Parameters, homography, thermal_settings


def predictor_options(parameters: Parameters) -> dict[str, Any]:
    """Return what `sartm_model.inference.open_predictor.open_predictor` is given."""
    return {
        # No shell replaces the ~ in `checkpoint:=~/...`.
        'checkpoint': os.path.expanduser(parameters.checkpoint),
        'device': parameters.device,
        'precision': parameters.precision,
        'engine': parameters.engine,
        'thermal_settings': thermal_settings(parameters),
        'homography': homography(parameters),
    }


def load_predictor(parameters: Parameters, logger: Any) -> Any:
    """Return the warmed-up predictor of `checkpoint` and log what it is; imports torch.

    Raises:
        SartmError: the checkpoint or the device cannot be used.
    """
    from sartm_model.inference.open_predictor import open_predictor

    begun_s = time.monotonic()
    predictor: Any = open_predictor(**predictor_options(parameters))
    used = camera_topics(without_unused_topics(parameters, predictor.modalities))
    width, height = parameters.warm_up_width, parameters.warm_up_height
    if width and height:
        if predictor.engine == 'compile':
            logger.info(
                f'compiling the network for {width}x{height}, which takes minutes the first time; '
                f'later starts take it from {predictor.compiled_folder}'
            )
        cameras = [name for name, topic in used.items() if topic]
        predictor.warm_up(height, width, cameras)
    logger.info(
        f'configured in {time.monotonic() - begun_s:.1f} s: checkpoint {parameters.checkpoint}, '
        f'{len(predictor.label_space)} classes, {predictor.device} in {predictor.precision}, '
        f'engine {predictor.engine}'
    )
    forgotten = forgotten_modality(parameters, predictor.modalities)
    if forgotten:
        logger.warning(forgotten)
    for name, topic in camera_topics(parameters).items():
        if used[name] != topic and not (forgotten and name != 'rgb'):
            takes = ' and '.join(predictor.modalities)
            logger.info(f'{topic_parameter(name)} is not used: the network takes {takes} alone')
    thermal_topic = topic_parameter('thermal')
    is_set = parameters.thermal_topic not in ('', FIELDS[thermal_topic].default)
    if is_set and parameters.x_modality != 'thermal':
        logger.info(f'{thermal_topic} is not used: x_modality is {parameters.x_modality}')
    return predictor
