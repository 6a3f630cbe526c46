"""Loads the network as the parameters ask for."""

from __future__ import annotations

import time
from typing import Any

from sartm_ros.node.parameters import (
    Parameters,
    homography,
    thermal_settings,
    without_unused_topics,
)


def predictor_options(settings: Parameters) -> dict[str, Any]:
    """Return what `sartm_model.inference.onnx_predictor.open_predictor` is given."""
    return {
        'checkpoint': settings.checkpoint,
        'device': settings.device,
        'precision': settings.precision,
        'engine': settings.engine,
        'thermal_settings': thermal_settings(settings),
        'homography': homography(settings),
    }


def load_predictor(settings: Parameters, logger: Any) -> Any:
    """Return the warmed-up predictor of `checkpoint` and log what it is; imports torch.

    Raises:
        SartmError: the checkpoint or the device cannot be used.
    """
    from sartm_model.inference.onnx_predictor import open_predictor

    begun_s = time.monotonic()
    predictor: Any = open_predictor(**predictor_options(settings))
    width, height = settings.warm_up_width, settings.warm_up_height
    if width and height:
        if predictor.engine == 'compile':
            logger.info(
                f'compiling the network for {width}x{height}, which takes minutes the first time; '
                f'later starts take it from {predictor.compiled_folder}'
            )
        predictor.warm_up(height, width)
    logger.info(
        f'configured in {time.monotonic() - begun_s:.1f} s: checkpoint {settings.checkpoint}, '
        f'{len(predictor.label_space)} classes, {predictor.device} in {predictor.precision}, '
        f'engine {predictor.engine}'
    )
    used = without_unused_topics(settings, predictor.modalities)
    for name in ('rgb_topic', 'thermal_topic'):
        if getattr(used, name) != getattr(settings, name):
            takes = ' and '.join(predictor.modalities)
            logger.info(f'{name} is not used: the network takes {takes} alone')
    return predictor
