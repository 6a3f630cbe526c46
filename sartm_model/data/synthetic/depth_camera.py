"""The depth camera of the scenes: two infrared cameras with a light of their own (active stereo).

It measures the disparity f B / z, so the error of a distance grows with its square, and it does not
depend on the light of the scene. It has no reading

- beyond its range, such as in the sky;
- where one of its two cameras does not see the surface, beside the left edge of what is nearer;
- at parts of the other edges, where a pixel shows two surfaces;
- on most of a pane of glass, which reflects the light away or lets it through.

What is painted on the ground, such as `curve` and `bump`, has the depth of the ground.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.data.synthetic.surfaces import Material, Surfaces
from sartm_model.data.synthetic.textures import piece, textures
from sartm_model.modalities.depth import NO_READING, millimetres

BASELINE_M = 0.12
"""Distance of the two cameras."""

ERROR = (0.0006, 0.0018)
"""Standard deviation of the inverse depth in 1/m, lowest and highest of the scenes.

At 10 m it makes 6 to 18 cm, at 30 m 0.5 to 1.6 m.
"""

RANGE_M = (35.0, 60.0)
"""The distance from which on there is no reading, lowest and highest of the scenes."""

EDGE = 0.02
"""Difference of the inverse depth in 1/m between neighbouring pixels that makes an edge."""

EDGE_HOLES = 0.4
"""Share of the pixels at an edge that have no reading."""

CLEAR = 105
"""Glass has a reading where the texture 'soft' is below this, on a fifth of it."""


def measure(
    surfaces: Surfaces, constant: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """Measure the distances along the optical axis.

    Args:
        surfaces: what the camera sees.
        constant: random numbers for what is constant in a sequence.
        rng: random numbers for the noise of this frame.

    Returns:
        uint16 `[H, W]` in millimetres; 0 where there is no reading.
    """
    error, farthest_m = constant.uniform(*ERROR), constant.uniform(*RANGE_M)
    true = surfaces.inverse_depth
    height, width = true.shape
    noisy = cv2.scaleAdd(piece(textures()['grain'], height, width, rng), error, true)
    lost = true < 1 / farthest_m
    lost |= ~_seen_by_both(true, BASELINE_M * surfaces.camera.focal)
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.morphologyEx(true, cv2.MORPH_GRADIENT, kernel) > EDGE
    lost |= edge & (rng.random(true.shape, np.float32) < EDGE_HOLES)
    glass = (surfaces.material == Material.GLASS) | (surfaces.material == Material.LIT_GLASS)
    lost |= glass & (piece(textures()['soft'], height, width, rng) >= CLEAR)
    depth = millimetres(1 / np.maximum(noisy, 1e-3))
    depth[lost] = NO_READING
    return depth


def _seen_by_both(inverse_depth: np.ndarray, reach: float) -> np.ndarray:
    """Return which pixels the second camera, on the right, sees too.

    It shows a pixel `disparity = reach * inverse_depth` columns further to the left, unless what is
    nearer is shown there.

    Args:
        inverse_depth: float32 `[H, W]`, 1/m.
        reach: baseline times focal length, in metres times pixels.
    """
    height, width = inverse_depth.shape
    disparity = reach * inverse_depth
    column = np.rint(np.arange(width) - disparity).astype(np.int64)
    inside = column >= 0
    place = np.arange(height)[:, None] * width + np.maximum(column, 0)
    nearest = np.zeros(height * width, np.float32)
    np.maximum.at(nearest, place[inside], disparity[inside])
    return inside & (disparity > nearest[place] - 1.0)
