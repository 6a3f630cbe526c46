"""The images that are drawn of a procedural scene, and the pen that draws into them.

A `Pen` draws an object at once into aligned images: reflected light, temperature, class and, where
they are needed, its surfaces.
Lengths are metres in the camera's frame (x right, y up from the road, z ahead), colours are RGB
from 0 to 255, and temperatures are grey levels of an 8-bit thermal camera in which hot is white.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.data.synthetic.camera import NEAR_M, Camera
from sartm_model.data.synthetic.surfaces import SUBPIXEL_BITS, Material, Surfaces

Color = tuple[float, float, float] | np.ndarray


def levels(values: Color | tuple[float, ...]) -> tuple[float, ...]:
    """Clip grey levels to 0 to 255."""
    return tuple(min(255.0, max(0.0, float(value))) for value in values)


class Canvas:
    """The images being drawn, all `[H, W]`.

    Attributes:
        rgb: uint8 `[H, W, 3]`.
        thermal: uint8.
        labels: uint8, class ids.
        leaves: uint8, 255 where there is foliage, whose texture is added at the end.
        glow: float32 `[H / 4, W / 4, 3]`, light of lamps, which the camera spreads around them.
        surfaces: geometry and materials; None where no camera needs them.
    """

    def __init__(self, camera: Camera, surfaces: Surfaces | None = None) -> None:
        size = (camera.height, camera.width)
        self.camera = camera
        self.rgb = np.zeros((*size, 3), np.uint8)
        self.thermal = np.zeros(size, np.uint8)
        self.labels = np.zeros(size, np.uint8)
        self.leaves = np.zeros(size, np.uint8)
        self.glow = np.zeros((-(-size[0] // 4), -(-size[1] // 4), 3), np.float32)
        self.surfaces = surfaces

    def fill(
        self,
        polygons: np.ndarray | list[np.ndarray],
        color: Color | None,
        temperature: float | None,
        label: int | None,
        *,
        material: Material | None = None,
        points: np.ndarray | None = None,
        solid: bool = False,
    ) -> None:
        """Fill polygons, given in pixels; None leaves the respective image unchanged.

        Args:
            polygons: `[N, 2]` each, columns and rows.
            color, temperature, label: see `Canvas`.
            material: that of the surface.
            points: `[N, 3]`, what the polygons show, in the camera's frame; None for a part of the
                surface that is there already.
            solid: see `Surfaces.fill`.
        """
        shapes = [np.round(p * (1 << SUBPIXEL_BITS)).astype(np.int32) for p in polygons]
        if color is not None:
            cv2.fillPoly(self.rgb, shapes, levels(color), cv2.LINE_AA, SUBPIXEL_BITS)
        if temperature is not None:
            level = levels((temperature,))
            cv2.fillPoly(self.thermal, shapes, level, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, shapes, (label,), cv2.LINE_8, SUBPIXEL_BITS)
        if self.surfaces is not None and material is not None:
            if points is None:
                self.surfaces.paint(shapes, material)
            else:
                for shape in shapes:
                    self.surfaces.fill(shape, points, material, solid=solid)

    def shine(self, pixel: np.ndarray, radius: float, color: Color) -> None:
        """Add a lamp at `pixel` (column, row) with a radius in pixels to the glow."""
        center = (int(pixel[0] / 4), int(pixel[1] / 4))
        drawn = max(1, round(radius / 4))
        area = min(
            1.0, np.pi * (radius / 4) ** 2 / (1 + 4 * drawn**2)
        )  # relative to the circle drawn
        value = tuple(float(c) for c in area * np.asarray(color, float))
        cv2.circle(self.glow, center, drawn, value, -1)


class Pen:
    """Draws one object, whose points are given in its own frame.

    Args:
        canvas: the images to draw into; what is behind the object is there already.
        position: x and z of the object in the camera's frame, in metres.
        yaw: rotation about the vertical axis, in radians.
        light: the light on the object, one factor per colour channel; 1 if None.
        rgb_contrast, thermal_contrast: the fraction of the difference from the surroundings that is
            kept; with a value near 0 the object cannot be distinguished in that modality.
        extent: width and height in metres of the area whose mean is the surroundings.
        label: class id.
    """

    def __init__(
        self,
        canvas: Canvas,
        position: tuple[float, float],
        *,
        yaw: float = 0.0,
        light: np.ndarray | None = None,
        rgb_contrast: float = 1.0,
        thermal_contrast: float = 1.0,
        extent: tuple[float, float] = (1.0, 1.0),
        label: int = 0,
    ) -> None:
        self.canvas = canvas
        self.x, self.z = position
        self.cos, self.sin = float(np.cos(yaw)), float(np.sin(yaw))
        self.light = np.ones(3) if light is None else light
        self.rgb_contrast = rgb_contrast
        self.thermal_contrast = thermal_contrast
        self.label = label
        self.scale = canvas.camera.focal / max(self.z, NEAR_M)
        """Pixels per metre at the position of the object."""
        if min(rgb_contrast, thermal_contrast) < 1:
            self.surround_rgb, self.surround_thermal = self._surroundings(*extent)

    def _surroundings(self, width_m: float, height_m: float) -> tuple[np.ndarray, float]:
        """Return the mean colour and temperature of what is behind the object."""
        column, foot = self.pixels(np.zeros(3))
        half = 0.5 * width_m * self.scale
        rows, columns = self.canvas.labels.shape
        top, bottom = np.clip((foot - height_m * self.scale, foot), 0, rows - 1).astype(int)
        left, right = np.clip((column - half, column + half), 0, columns - 1).astype(int)
        window = np.s_[top : bottom + 1, left : right + 1]
        rgb = cv2.mean(self.canvas.rgb[window])[:3]
        return np.array(rgb), cv2.mean(self.canvas.thermal[window])[0]

    def place(self, points: np.ndarray) -> np.ndarray:
        """Convert points `[..., 3]` in the object's frame to the camera's frame."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        placed = np.empty(points.shape)
        placed[..., 0] = self.x + self.cos * x + self.sin * z
        placed[..., 1] = y
        placed[..., 2] = self.z - self.sin * x + self.cos * z
        return placed

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Project points `[..., 3]` in the object's frame to pixels `[..., 2]`."""
        return self.canvas.camera.project(self.place(points))

    def tones(
        self, albedo: Color | float, temperature: float, emissive: bool = False
    ) -> tuple[np.ndarray, float]:
        """Return the colour and the thermal grey level of a surface in the images."""
        color = np.asarray(albedo, float) * (1.0 if emissive else self.light)
        if self.rgb_contrast < 1:
            color = self.surround_rgb + self.rgb_contrast * (color - self.surround_rgb)
        if self.thermal_contrast < 1:
            difference = temperature - self.surround_thermal
            temperature = self.surround_thermal + self.thermal_contrast * difference
        return color, temperature

    def fill(
        self,
        points: np.ndarray,
        albedo: Color | float,
        temperature: float,
        *,
        hull: bool = False,
        material: Material = Material.MATTE,
    ) -> None:
        """Fill the polygon `[N, 3]` in the object's frame, or its convex hull in the image."""
        placed = self.place(points)
        polygon = self.canvas.camera.project(placed)
        if hull:
            polygon = cv2.convexHull(polygon.astype(np.float32))[:, 0]
        self.canvas.fill([polygon], *self.tones(albedo, temperature), self.label,
                         material=material, points=placed, solid=hull)  # fmt: skip

    def outline(self, points: np.ndarray) -> None:
        """Label the convex hull of `[N, 3]`, as annotators do, without drawing it."""
        hull = cv2.convexHull(self.pixels(points).astype(np.float32))[:, 0]
        self.canvas.fill([hull], None, None, self.label)

    def line(
        self,
        points: np.ndarray,
        width_m: float,
        albedo: Color | float,
        temperature: float,
        *,
        closed: bool = False,
        material: Material = Material.MATTE,
    ) -> None:
        """Draw a polyline `[N, 3]` of a width in metres."""
        placed = self.place(points)
        pixels = self.canvas.camera.project(placed)
        shape = [np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)]
        thickness = max(1, round(width_m * self.scale))
        color, level = self.tones(albedo, temperature)
        how = (closed, levels(color), thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.polylines(self.canvas.rgb, shape, *how)
        how = (closed, levels((level,)), thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.polylines(self.canvas.thermal, shape, *how)
        how = (closed, (self.label,), thickness, cv2.LINE_8, SUBPIXEL_BITS)
        cv2.polylines(self.canvas.labels, shape, *how)
        if self.canvas.surfaces is not None:
            self.canvas.surfaces.line(shape[0], placed, material, thickness, closed)

    def lamp(self, point: tuple[float, float, float], radius_m: float, color: Color) -> None:
        """Draw a lit lamp with its glow. The lamp is off if the object is hidden in RGB."""
        if self.rgb_contrast < 1:
            return
        pixel = self.pixels(np.asarray(point, float))
        radius = max(0.7, radius_m * self.scale)
        ring = pixel + radius * CIRCLE
        self.canvas.fill([ring], np.minimum(255, np.asarray(color) * 1.3), None, None)
        self.canvas.shine(pixel, 1.5 * radius, color)


ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
CIRCLE = np.stack((np.cos(ANGLES), np.sin(ANGLES)), -1)
