"""The light field of the scenes: an array of 9x9 cameras of RGB, which see the scene from nearby.

The array is upright and its cameras look in the same direction. So what is at z metres is shifted
between neighbours by f d / z pixels, where d is the distance of their places, and what is at
infinity is not shifted. The image of RGB is that of the central camera, `5_5`, in row and column 5
counted from the top and from the left. All have the same point spread, white balance and exposure,
and each has its own noise. By night they are as dark as RGB: a light field adds parallax, not
light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import Scene

SPACING_M = 0.02
"""Distance of neighbouring cameras: the outermost view of a row is 8 cm from the centre.

In an image of 640 columns what is at 10 m is shifted there by about 7 pixels.
"""

CENTRE = 5


def take(
    scene: Scene,
    time_s: float,
    size: tuple[int, int],
    views: Sequence[str],
    rng: np.random.Generator,
) -> np.ndarray:
    """Take some views at once.

    Args:
        scene: what is drawn.
        time_s: the moment.
        size: height and width in pixels.
        views: their names, such as '1_5' for the first row and the fifth column.
        rng: random numbers for the noise of the views.

    Returns:
        uint8 `[H, W, 3 V]`, RGB of each of the V views.
    """
    images = []
    for view in views:
        row, column = map(int, view.split('_'))
        place = (SPACING_M * (column - CENTRE), SPACING_M * (CENTRE - row))
        canvas = paint(replace(scene, view_m=place), time_s, *size)
        images.append(scene.sensor.expose_rgb(canvas, rng))
    return np.concatenate(images, axis=2)
