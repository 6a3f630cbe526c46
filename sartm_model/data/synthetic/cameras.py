"""The images of a scene by modality: which camera gives each, and the random numbers of each."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sartm_model.data.synthetic import (
    camera_array,
    depth_camera,
    event_camera,
    polarization_camera,
)
from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import Scene
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES, light_field

STREAMS = {
    'depth': 2,
    'event': 3,
    'event_voxel3': 4,
    'event_voxel5': 5,
    'polarization': 6,
    'light_field': 7,
    'light_field_row': 8,
}
"""The number of each camera's stream of random numbers; RGB and thermal share the number 1."""

EVENT_BINS = {'event': 1, 'event_voxel3': 3, 'event_voxel5': 5}

VIEWS = {'light_field': (light_field.VIEW,), 'light_field_row': light_field.ROW}

ON_SURFACES = {'depth', 'polarization'}
"""The modalities for which geometry and materials are drawn."""

GIVEN = ('rgb', 'thermal', *STREAMS)
"""The modalities that the scenes have."""


def check_given(modalities: Collection[str]) -> None:
    """Raise SartmError if the scenes do not have one of the modalities, or none is asked for."""
    if not modalities or not set(modalities) <= set(GIVEN):
        raise SartmError(
            f'the synthetic scenes have {", ".join(GIVEN)}; '
            f'{", ".join(modalities) or "no modality"} was asked for'
        )


def shoot(
    scene: Scene,
    time_s: float,
    size: tuple[int, int],
    modalities: Collection[str],
    key: tuple[int, ...],
    index: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Take the images of one moment.

    An image is the same whichever others are asked for.

    Args:
        scene: what is drawn.
        time_s: the moment.
        size: height and width in pixels.
        modalities: those to render, some of `GIVEN`.
        key: the seed of the scene.
        index: number of the frame.

    Returns:
        The raw images, in the order of `MODALITIES`, and the labels, uint8 `[H, W]`.
    """
    canvas = paint(scene, time_s, *size, with_surfaces=not ON_SURFACES.isdisjoint(modalities))
    images = {}
    if 'rgb' in modalities or 'thermal' in modalities:
        rng = np.random.default_rng((*key, 1, index))
        images['rgb'] = scene.sensor.expose_rgb(canvas, rng)  # its noise comes before thermal's
        if 'thermal' in modalities:
            images['thermal'] = scene.sensor.expose_thermal(canvas, rng)
    for name in STREAMS:
        if name not in modalities:
            continue
        # From 1 on, because NumPy treats the seeds (5,) and (5, 0) as equal.
        constant = np.random.default_rng((*key, STREAMS[name]))
        noise = np.random.default_rng((*key, STREAMS[name], index + 1))
        if name == 'depth':
            assert canvas.surfaces is not None
            image = depth_camera.measure(canvas.surfaces, constant, noise)
        elif name == 'polarization':
            image = polarization_camera.measure(canvas, scene.night, constant, noise)
        elif name in EVENT_BINS:
            bins = EVENT_BINS[name]
            image = event_camera.watch(scene, time_s, size, bins, constant, noise)
            if name == 'event':
                image = event_camera.as_image(image)
        else:
            image = camera_array.take(scene, time_s, size, VIEWS[name], noise)
        images[name] = image
    return {name: images[name] for name in MODALITIES if name in modalities}, canvas.labels
