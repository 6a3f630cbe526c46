"""The camera of the procedural scenes: where the points of a scene are in its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR_M = 0.6
"""Smallest depth in a projection; closer points are projected as if they were here."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along the road without roll.

    Attributes:
        height, width: size of the images in pixels.
        focal: focal length in pixels.
        horizon: row of the horizon.
        mount_m: height of the camera above the road, in metres.
        curvature: curvature of the road in 1/m; its centre is at x = curvature z^2 / 2.
        offset_m: position of the camera across the road, in metres, positive to the right of its
            centre.
        right_m: how far right of the central camera of an array this one is, in metres; part of
            `offset_m`.
    """

    height: int
    width: int
    focal: float
    horizon: float
    mount_m: float
    curvature: float
    offset_m: float
    right_m: float = 0.0

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points (x, y, z) `[..., 3]` in metres to pixels (column, row) `[..., 2]`."""
        scale = self.focal / np.maximum(points[..., 2], NEAR_M)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.width / 2 + scale * points[..., 0]
        pixels[..., 1] = self.horizon + scale * (self.mount_m - points[..., 1])
        return pixels

    def lateral(self, along: np.ndarray | float, across: np.ndarray | float) -> np.ndarray | float:
        """Return x of a point `along` metres ahead, `across` metres right of the road's centre."""
        return across - self.offset_m + 0.5 * self.curvature * np.square(along)
