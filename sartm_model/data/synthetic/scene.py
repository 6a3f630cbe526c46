"""A procedural scene: what is in it, where, and under what light.

Places are along and across the road in metres: `along` from where the camera starts, `across`
from the road's centre, positive to the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sartm_model.data.synthetic.canvas import Camera
from sartm_model.data.synthetic.sensor import Sensor
from sartm_model.data.synthetic.things import Draw


@dataclass(frozen=True)
class Thing:
    """One thing in a scene.

    Attributes:
        draw: draws it.
        label: class id; 0 for scenery.
        along, across, yaw: where it is at time 0 and how it is turned.
        velocity: m/s along and across.
        rgb_contrast, thermal_contrast: see `Pen`.
        extent: its width and height in metres.
        flat: painted on the ground, so it takes the ground's light and texture.
        fill_light: the least light on it at night (a passer-by under a lamp).
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
    """Everything that stays the same in a sequence; `lamps` is `[N, 4]`: along, across, height
    and strength of each street lamp."""

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
    things: list[Thing] = field(default_factory=list)

    def camera(self, height: int, width: int, time_s: float) -> Camera:
        """The camera for an image size; it sways a little while it drives."""
        sway = self.speed * 0.0008 * np.sin(5.1 * time_s)
        return Camera(
            height, width,
            focal=self.focal * max(width, height * 4 / 3),
            horizon=(self.horizon + sway) * height,
            mount_m=self.mount_m,
            curvature=self.curvature,
            offset_m=self.offset_m,
        )  # fmt: skip

    def light(self, x: np.ndarray | float, z: np.ndarray | float, travelled: float) -> np.ndarray:
        """How much light falls at (x, z) metres from the camera: 1 is full daylight."""
        total = np.zeros(np.broadcast(x, z).shape) + self.ambient
        if self.head:
            cone = np.square(x / (2.0 + 0.22 * z))
            total = total + self.head * np.exp(-z / 22.0 - cone)
        for along, across, tall, strength in self.lamps:
            ahead = along - travelled
            center = across - self.offset_m + 0.5 * self.curvature * ahead**2
            squared = np.square(x - center) + np.square(z - ahead)
            total = total + strength / (1 + squared / (1.2 * tall) ** 2) ** 1.5
        return total
