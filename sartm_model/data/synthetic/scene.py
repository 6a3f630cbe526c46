"""A scene: its objects, their positions, and the light.

Positions are in metres: `along` the road from where the camera starts, and `across` it from its
centre, positive to the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sartm_model.data.synthetic.camera import Camera
from sartm_model.data.synthetic.objects import Draw
from sartm_model.data.synthetic.sensor import Sensor


@dataclass(frozen=True)
class SceneObject:
    """An object in a scene.

    Attributes:
        draw: draws the object with a pen.
        label: class id; 0 for scenery.
        along, across: position at time 0, in metres.
        yaw: rotation about the vertical axis, in radians.
        velocity: speed along and across, in m/s.
        rgb_contrast, thermal_contrast: see `Pen`.
        extent: width and height in metres.
        flat: the object is painted on the ground and shares its light and texture.
        fill_light: smallest light on the object at night.
    """

    draw: Draw
    label: int
    along: float
    across: float
    yaw: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    rgb_contrast: float = 1.0
    thermal_contrast: float = 1.0
    extent: tuple[float, float] = (1.0, 1.0)
    flat: bool = False
    fill_light: float = 0.0


@dataclass(frozen=True)
class Scene:
    """All that is constant in a sequence.

    Attributes:
        night: whether the scene is at night.
        focal: focal length relative to the width of the image.
        horizon: row of the horizon relative to the height of the image.
        mount_m, curvature, offset_m: see `Camera`.
        speed: speed of the camera in m/s.
        road_half_m: half the width of the road in metres.
        ambient: light without lamps; 1 is full daylight.
        head: strength of the head lights of the camera's vehicle.
        tint: colour of the light, one factor per channel.
        texture_origin: where the textures start, (row, column).
        paved: paving stones instead of asphalt.
        sensor: the cameras' properties.
        lamps: `[N, 4]`, along, across, height and strength of each street lamp.
        objects: all objects and the scenery.
        view_m: how far right of and above its place the camera is, in metres.
        light_exponent: the light everywhere is raised to this power.
        smooth_ground: the texture of the ground fades where it is finer than a pixel, so that it
            does not flicker from one image to the next.
    """

    night: bool
    focal: float
    horizon: float
    mount_m: float
    curvature: float
    offset_m: float
    speed: float
    road_half_m: float
    ambient: float
    head: float
    tint: np.ndarray
    texture_origin: tuple[int, int]
    paved: bool
    sensor: Sensor
    lamps: np.ndarray
    objects: list[SceneObject] = field(default_factory=list)
    view_m: tuple[float, float] = (0.0, 0.0)
    light_exponent: float = 1.0
    smooth_ground: bool = False

    def camera(self, height: int, width: int, time_s: float) -> Camera:
        """Return the camera for an image size; its pitch varies slightly while it moves."""
        sway = self.speed * 0.0008 * np.sin(5.1 * time_s)
        return Camera(
            height, width,
            focal=self.focal * max(width, height * 4 / 3),
            horizon=(self.horizon + sway) * height,
            mount_m=self.mount_m + self.view_m[1],
            curvature=self.curvature,
            offset_m=self.offset_m + self.view_m[0],
            right_m=self.view_m[0],
        )  # fmt: skip

    def light(self, x: np.ndarray | float, z: np.ndarray | float, travelled: float) -> np.ndarray:
        """Return the light at (x, z) metres from the camera; 1 is full daylight."""
        x = x + self.view_m[0]  # the lamps and the head lights stay where they are
        total = np.zeros(np.broadcast(x, z).shape) + self.ambient
        if self.head:
            cone = np.square(x / (2.0 + 0.22 * z))
            total = total + self.head * np.exp(-z / 22.0 - cone)
        for along, across, tall, strength in self.lamps:
            ahead = along - travelled
            center = across - self.offset_m + 0.5 * self.curvature * ahead**2
            squared = np.square(x - center) + np.square(z - ahead)
            total = total + strength / (1 + squared / (1.2 * tall) ** 2) ** 1.5
        return total if self.light_exponent == 1 else total**self.light_exponent
