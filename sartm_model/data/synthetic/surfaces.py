"""The geometry and the materials of a drawn scene, for cameras that see more than colours."""

from __future__ import annotations

from enum import IntEnum

import cv2
import numpy as np

from sartm_model.data.synthetic.camera import NEAR_M, Camera

SUBPIXEL_BITS = 3


class Material(IntEnum):
    """What a surface is made of, by how it reflects light."""

    SKY = 0
    MATTE = 1
    FOLIAGE = 2
    PAVEMENT = 3
    ROAD = 4
    LACQUER = 5
    METAL = 6
    GLASS = 7
    LIT_GLASS = 8


class Surfaces:
    """What each pixel of an image shows, drawn from far to near; at first all of it is sky.

    The reciprocal of the depth is stored because it is an affine function of column and row on a
    plane, and 0 at infinity.

    Args:
        camera: the camera of the image.
        foliage_alone: only foliage is drawn; what is elsewhere is not of use then.

    Attributes:
        x, y: `[1, W]` and `[H, 1]`, where the pixels see at 1 m of depth, in metres.
        inverse_depth: float32 `[H, W]`, the reciprocal of the distance along the optical axis, 1/m.
        normals: float32 `[H, W, 3]`, the unit vector across the surface (x right, y up, z ahead).
        material: uint8 `[H, W]`, values of `Material`.
    """

    def __init__(self, camera: Camera, foliage_alone: bool = False) -> None:
        size = (camera.height, camera.width)
        self.camera = camera
        self.foliage_alone = foliage_alone
        columns, rows = (np.arange(n, dtype=np.float32) for n in (camera.width, camera.height))
        self.x = ((columns - camera.width / 2) / camera.focal).astype(np.float32)[None]
        self.y = ((camera.horizon - rows) / camera.focal).astype(np.float32)[:, None]
        self.inverse_depth = np.zeros(size, np.float32)
        self.normals = np.zeros((*size, 3), np.float32)
        self.material = np.zeros(size, np.uint8)

    def fill_ground(self, top: int, material: Material) -> None:
        """Fill the rows from `top` on with level ground, at the height of the road."""
        inverse = -self.y[top:] / self.camera.mount_m
        self.inverse_depth[top:] = np.clip(inverse, 0, 1 / NEAR_M)
        self.normals[top:] = (0, 1, 0)
        self.material[top:] = material

    def fill(
        self, shape: np.ndarray, points: np.ndarray, material: Material, *, solid: bool = False
    ) -> None:
        """Fill a polygon, which is the image of points on a plane.

        Args:
            shape: int32 `[M, 2]`, columns and rows in fixed point with `SUBPIXEL_BITS` bits.
            points: `[N, 3]`, the points in metres in the camera's frame, whose y is above the road.
            material: that of the surface.
            solid: the points are the corners of a body and the polygon is its outline. The plane is
                then the one of the nearer half of them.
        """
        if self.foliage_alone and material != Material.FOLIAGE:
            return
        lens = (0.0, self.camera.mount_m, 0.0)
        normal, inverse_range, origin = _plane(points - lens, solid)
        left, top = np.maximum(shape.min(0) >> SUBPIXEL_BITS, 0)
        right, bottom = (shape.max(0) >> SUBPIXEL_BITS) + 2
        window = np.s_[top:bottom, left:right]
        region = self.inverse_depth[window]
        if not region.size:
            return
        mask = np.zeros(region.shape, np.uint8)
        moved = shape - (np.array([left, top]) << SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [moved], (1,), cv2.LINE_8, SUBPIXEL_BITS)
        # A ray meets the plane where depth * (ray . normal) = origin . normal.
        height = float(origin @ normal)
        across = normal[0] * self.x[:, left:right] + normal[1] * self.y[top:bottom] + normal[2]
        inverse = across / height if abs(height) > 1e-6 else np.full_like(region, inverse_range[1])
        np.copyto(
            region, np.clip(inverse, *inverse_range), where=mask.view(bool), casting='same_kind'
        )
        cv2.fillPoly(self.normals, [shape], tuple(normal.tolist()), cv2.LINE_8, SUBPIXEL_BITS)
        self.paint([shape], material)

    def paint(self, shapes: list[np.ndarray], material: Material) -> None:
        """Change the material of what is there already."""
        if self.foliage_alone:
            return
        cv2.fillPoly(self.material, shapes, (int(material),), cv2.LINE_8, SUBPIXEL_BITS)

    def line(
        self,
        shape: np.ndarray,
        points: np.ndarray,
        material: Material,
        thickness: int,
        closed: bool,
    ) -> None:
        """Draw a polyline at the mean depth of its points, facing the camera."""
        if self.foliage_alone:
            return
        inverse = 1 / max(float(points[:, 2].mean()), NEAR_M)
        how = (thickness, cv2.LINE_8, SUBPIXEL_BITS)
        cv2.polylines(self.inverse_depth, [shape], closed, (inverse,), *how)
        cv2.polylines(self.normals, [shape], closed, (0, 0, -1), *how)
        cv2.polylines(self.material, [shape], closed, (int(material),), *how)


def _plane(points: np.ndarray, solid: bool) -> tuple[np.ndarray, tuple[float, float], np.ndarray]:
    """Fit a plane to points.

    Returns:
        The unit normal, which points to the camera; the smallest and the largest inverse depth of
        the points; and a point on the plane.
    """
    middle = points.mean(0)
    centred = points - middle
    spread, axes = np.linalg.eigh(centred.T @ centred)  # in ascending order
    if solid and spread[0] > 1e-4 * spread[2]:
        return _plane(points[points[:, 2] <= np.median(points[:, 2])], False)
    # Points on a line have no plane of their own; take the one that faces the camera.
    normal = axes[:, 0] if spread[1] > 1e-8 * spread[2] else middle / np.linalg.norm(middle)
    if normal @ middle > 0:
        normal = -normal
    depths = np.maximum((points[:, 2].max(), points[:, 2].min()), NEAR_M)
    return normal, tuple(1 / depths), middle
