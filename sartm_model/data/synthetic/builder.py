"""Builds random scenes: which objects are where, and how visible they are in each modality."""

from __future__ import annotations

from typing import Any

import numpy as np

from sartm_model.data.synthetic import objects, scenery, vehicles
from sartm_model.data.synthetic.scene import Scene, SceneObject
from sartm_model.data.synthetic.sensor import Sensor
from sartm_model.labels import MFNET

NIGHT_CONTRAST = {
    # class: probability to be visible in (both modalities, RGB alone, thermal alone)
    'car': (0.5, 0.2, 0.3),
    'person': (0.5, 0.05, 0.45),
    'bike': (0.4, 0.35, 0.25),
    'curve': (0.35, 0.45, 0.2),
    'car_stop': (0.35, 0.4, 0.25),
    'guardrail': (0.4, 0.35, 0.25),
    'color_cone': (0.35, 0.45, 0.2),
    'bump': (0.3, 0.45, 0.25),
}
DAY_CONTRAST = (0.7, 0.22, 0.08)
NEAREST_M = {'person': 1.2, 'car': 4.0, 'bike': 2.0, 'color_cone': 1.5, 'car_stop': 1.5}
"""Class -> the smallest distance of its objects in scenes with near ones."""

HIDDEN_CONTRAST = 0.05
"""The fraction of its contrast that an object keeps in a modality in which it is not visible."""


def _sensor(rng: np.random.Generator, night: bool) -> Sensor:
    tint = np.array([0.93, 1.06, 0.93]) if night else np.array([1.0, 1.0, 1.03])
    return Sensor(
        tint=tint * rng.uniform(0.93, 1.07, 3) * (rng.uniform(0.75, 1.3) if night else 1.0),
        black=rng.uniform(0, 8) if night else rng.uniform(0, 15),
        rgb_noise=rng.uniform(0.8, 4) if night else rng.uniform(0.8, 3),
        thermal_noise=rng.uniform(0.4, 1.6),
        rgb_blur=rng.uniform(0.4, 1.1),
        thermal_blur=rng.uniform(0.6, 1.2),
        motion_px=rng.uniform(2, 6) if night and rng.random() < 0.2 else 0.0,
        gain=rng.uniform(0.75, 1.3) if night else rng.uniform(0.8, 1.5),
        offset=rng.normal(0, 7) if night else rng.normal(5, 22),
        drift=rng.uniform(0, 3),
    )


class _Builder:
    """Builds one random scene; each `add_*` method adds a kind of object."""

    def __init__(self, rng: np.random.Generator, night: bool, travel_m: float, road: float) -> None:
        self.rng, self.night, self.travel_m, self.road = rng, night, travel_m, road
        self.objects: list[SceneObject] = []

    def along(self, near: float = 8.0, far: float = 60.0) -> float:
        """Draw a distance, log-uniform so that the image has both large and small objects."""
        distance = float(np.exp(self.rng.uniform(np.log(near), np.log(far))))
        return distance + self.rng.uniform(0, self.travel_m)

    def count(self, chance: float, most: int) -> int:
        """Draw a number: 1 to `most` with probability `chance`, otherwise 0.

        It grows with the distance that the camera travels.
        """
        if self.rng.random() > chance:
            return 0
        return round(self.rng.integers(1, most + 1) * (1 + self.travel_m / 60))

    def contrast(self, name: str) -> tuple[float, float]:
        """Draw the contrast of an object of a class in RGB and in thermal."""
        probabilities = NIGHT_CONTRAST[name] if self.night else DAY_CONTRAST
        visible_in = self.rng.choice(3, p=probabilities)  # both, RGB alone, thermal alone
        return (
            HIDDEN_CONTRAST if visible_in == 2 else 1.0,
            HIDDEN_CONTRAST if visible_in == 1 else 1.0,
        )

    def add(
        self, name: str, draw: objects.Draw, along: float, across: float,
        contrast: tuple[float, float] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Add an object of a class; `more` are further attributes of `SceneObject`."""
        rgb, thermal = contrast or self.contrast(name)
        light = float(self.rng.uniform(0.18, 0.6)) if rgb == 1 else 0.0
        self.objects.append(
            SceneObject(draw, MFNET.classes.index(name), along, across, rgb_contrast=rgb,
                  thermal_contrast=thermal, fill_light=light, **more)
        )  # fmt: skip

    def verge(self) -> tuple[float, float]:
        """Draw a side of the road (-1 or 1) and a position across, beside the road."""
        side = self.rng.choice([-1.0, 1.0])
        return side, side * (self.road + self.rng.uniform(0.3, 3.5))

    def add_cars(self) -> None:
        rng = self.rng
        for _ in range(self.count(0.65, 4)):
            running = rng.random() < 0.45
            draw = vehicles.car(rng, night=self.night, running=running)
            extent = (2.6, 1.5)
            if running:
                side = rng.choice([-1.0, 1.0])
                speed = rng.uniform(0, 6) if side > 0 else rng.uniform(-7, 0)
                crossing = rng.random() < 0.15
                yaw = side * np.pi / 2 if crossing else (0.0 if side > 0 else np.pi)
                self.add('car', draw, self.along(9), side * self.road * 0.5, extent=extent,
                         yaw=yaw + rng.normal(0, 0.12),
                         velocity=(0.0, side * abs(speed)) if crossing else (speed, 0.0),
                         contrast=(1.0, 1.0) if rng.random() < 0.6 else None)  # fmt: skip
            else:
                side, across = self.verge()
                yaw = rng.choice([0.0, np.pi, np.pi / 2, -np.pi / 2], p=[0.4, 0.2, 0.2, 0.2])
                self.add('car', draw, self.along(9), across + side * 0.5, extent=extent,
                         yaw=yaw + rng.normal(0, 0.2))  # fmt: skip

    def add_people(self) -> None:
        rng = self.rng
        for _ in range(self.count(0.8, 4)):
            along, across = self.along(), rng.uniform(-1.6, 1.6) * self.road
            contrast = self.contrast('person')
            walk = (rng.uniform(-1.2, 1.2), rng.normal(0, 0.5))
            for member in range(int(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))):
                self.add('person', objects.person(rng, night=self.night),
                         along + rng.normal(0, 0.8), across + 0.75 * member, contrast,
                         velocity=walk, extent=(0.9, 1.7))  # fmt: skip

    def add_bicycles(self) -> None:
        rng = self.rng
        for _ in range(self.count(0.32, 1)):  # a row of parked bicycles
            side, across = self.verge()
            along, contrast = self.along(7, 35), self.contrast('bike')
            turn = side * rng.uniform(0.6, 1.5)
            for index in range(int(rng.integers(2, 10))):
                self.add('bike', vehicles.bicycle(rng, night=self.night),
                         along + 0.6 * index, across + rng.normal(0, 0.1), contrast,
                         yaw=turn + rng.normal(0, 0.12), extent=(1.6, 1.0))  # fmt: skip
        for _ in range(self.count(0.3, 2)):  # single ones, ridden or left
            along, across = self.along(7, 45), rng.uniform(-1.3, 1.3) * self.road
            ridden = rng.random() < 0.6
            yaw = rng.choice([0.0, np.pi]) if ridden else rng.uniform(-np.pi, np.pi)
            if ridden and rng.random() < 0.3:
                yaw = rng.choice([-1.0, 1.0]) * np.pi / 2
            speed = rng.uniform(1.5, 4) if ridden else 0.0
            motion = {'velocity': (speed * np.cos(yaw), speed * np.sin(yaw))}
            lamp = self.night and ridden and rng.random() < 0.4
            self.add('bike', vehicles.bicycle(rng, night=self.night, lamp=lamp), along, across,
                     yaw=yaw, extent=(1.6, 1.0), **motion)  # fmt: skip
            if ridden:
                self.add('person', objects.person(rng, night=self.night, riding=True),
                         along - 0.05, across, extent=(0.9, 1.7), **motion)  # fmt: skip

    def add_barriers(self) -> None:
        rng = self.rng
        for _ in range(self.count(0.45, 2)):
            kind = str(rng.choice(['post', 'block', 'fence', 'bar'], p=[0.4, 0.25, 0.25, 0.1]))
            side, across = self.verge()
            along, gap = self.along(7, 40), rng.uniform(1.4, 2.6)
            contrast, beside = self.contrast('car_stop'), rng.random() < 0.5
            style = rng.integers(1 << 31)
            for index in range(int(rng.integers(1, 6))):
                draw = objects.car_stop(np.random.default_rng(style), night=self.night, kind=kind)
                step = (0.0, side * gap * index) if beside else (gap * index, 0.0)
                self.add('car_stop', draw, along + step[0], across + step[1], contrast,
                         extent=(1.2, 0.7))  # fmt: skip
        for _ in range(self.count(0.22, 1)):
            side = rng.choice([-1.0, 1.0])
            across = side * (self.road + rng.uniform(0.1, 1.5))
            self.add('guardrail', objects.guardrail(rng, night=self.night), self.along(4, 25),
                     across, yaw=rng.normal(0, 0.05), extent=(2.0, 0.8))  # fmt: skip
        for _ in range(self.count(0.42, 2)):
            side, across = self.verge()
            across -= side * rng.uniform(0, 3)
            along, gap, style = self.along(7, 40), rng.uniform(1.2, 3.5), rng.integers(1 << 31)
            contrast, drift = self.contrast('color_cone'), rng.normal(0, 0.25)
            for index in range(int(rng.integers(1, 6))):
                draw = objects.cone(np.random.default_rng(style), night=self.night)
                self.add('color_cone', draw, along + gap * index, across + drift * index * gap,
                         contrast, extent=(0.6, 0.7))  # fmt: skip

    def add_near(self, offset_m: float) -> None:
        """Add objects so close to the camera, `offset_m` across, that many are cut off."""
        rng, night = self.rng, self.night
        for _ in range(int(rng.integers(1, 4))):
            name = str(rng.choice([*NEAREST_M], p=[0.55, 0.2, 0.1, 0.08, 0.07]))
            nearest = NEAREST_M[name]
            along = nearest * float(np.exp(rng.uniform(0, np.log(8 / nearest))))
            across = offset_m + along * rng.uniform(-0.6, 0.6)
            yaw = rng.uniform(-np.pi, np.pi)
            if name == 'person':
                self.add(name, objects.person(rng, night=night), along, across, extent=(0.9, 1.7))
            elif name == 'car':
                draw = vehicles.car(rng, night=night, running=rng.random() < 0.45)
                self.add(name, draw, along, across, yaw=yaw, extent=(2.6, 1.5))
            elif name == 'bike':
                draw = vehicles.bicycle(rng, night=night)
                self.add(name, draw, along, across, yaw=yaw, extent=(1.6, 1.0))
            elif name == 'color_cone':
                self.add(name, objects.cone(rng, night=night), along, across, extent=(0.6, 0.7))
            else:
                kind = str(rng.choice(['post', 'block', 'fence']))
                draw = objects.car_stop(rng, night=night, kind=kind)
                self.add(name, draw, along, across, extent=(1.2, 0.7))

    def add_markings(self) -> None:
        rng = self.rng
        end = 90 + self.travel_m
        for side in (-1.0, 1.0):
            if rng.random() < 0.35:  # a kerb or an edge line, which may turn at a corner
                start, stop = rng.uniform(-5, 12), rng.uniform(25, end)
                path = scenery.edge_path(rng, start, stop, side * self.road, side)
                draw = scenery.band(rng, path, rng.uniform(0.15, 0.4), night=self.night)
                self.add('curve', draw, stop, 0.0, flat=True)
        if rng.random() < 0.25:
            along, wide = self.along(7, 25), rng.uniform(0.9, 2.2)
            draw = scenery.bump(rng, self.road * rng.uniform(0.9, 1.2), wide, night=self.night)
            self.add('bump', draw, along, 0.0, flat=True)
        for kind, chance in (('arrow', 0.2), ('crossing', 0.15), ('dashes', 0.3), ('patch', 0.3)):
            if rng.random() < chance:
                draw = scenery.marking(rng, kind, self.road)
                across = rng.uniform(-0.5, 0.5) * self.road
                self.objects.append(SceneObject(draw, 0, self.along(7, 30), across, flat=True))

    def add_scenery(self, lamps: np.ndarray) -> None:
        rng = self.rng
        end = 70 + self.travel_m
        for side in (-1.0, 1.0):
            setback = side * (self.road + rng.uniform(3, 9))
            if rng.random() < 0.6:
                start = rng.uniform(-10, 25)
                while start < end:
                    length = rng.uniform(10, 30)
                    draw = scenery.facade(rng, length, -side, night=self.night)
                    self.objects.append(SceneObject(draw, 0, start + length, setback))
                    start += length + rng.choice([0.0, rng.uniform(3, 15)])
            for _ in range(self.count(0.6, 5)):
                place = (self.along(9, 60), setback - side * rng.uniform(-3, 3))
                draw = scenery.tree(rng, night=self.night)
                self.objects.append(SceneObject(draw, 0, *place, extent=(4, 7)))
            if rng.random() < 0.35:
                draw = scenery.hedge(rng, rng.uniform(8, 30), side, night=self.night)
                across = setback - side * rng.uniform(0.5, 3)
                self.objects.append(SceneObject(draw, 0, self.along(8, 40) + 15, across))
        for _ in range(self.count(0.5, 2)):
            draw = scenery.signpost(rng, night=self.night)
            self.objects.append(SceneObject(draw, 0, self.along(9, 50), self.verge()[1]))
        for along, across, tall, _ in lamps:
            draw = scenery.street_lamp(rng, tall, night=self.night)
            self.objects.append(SceneObject(draw, 0, along, across))


def build(rng: np.random.Generator, night: bool, duration_s: float, near: bool = False) -> Scene:
    """Build a random scene for a drive of `duration_s` seconds.

    With `near` there are objects close to the camera besides all that is in it otherwise.
    """
    road = rng.uniform(2.4, 5.0)
    speed = rng.uniform(0.5, 4.0)
    travel = speed * duration_s
    count = int(rng.integers(0, 4) * (1 + travel / 60))
    lamps = np.column_stack((
        rng.uniform(8, 60 + travel, count),
        rng.choice([-1.0, 1.0], count) * (road + rng.uniform(0.5, 4, count)),
        rng.uniform(3.5, 6, count),
        rng.uniform(0.1, 0.55, count) if night else np.zeros(count),
    ))  # fmt: skip
    builder = _Builder(rng, night, travel, road)
    builder.add_cars()
    builder.add_people()
    builder.add_bicycles()
    builder.add_barriers()
    builder.add_markings()
    builder.add_scenery(lamps)
    scene = Scene(
        night=night,
        focal=rng.uniform(0.9, 1.7),
        horizon=rng.uniform(0.42, 0.53),
        mount_m=rng.uniform(1.1, 1.8),
        curvature=rng.normal(0, 0.002),
        offset_m=rng.uniform(-0.4, 0.4) * road,
        speed=speed,
        road_half_m=road,
        ambient=rng.uniform(0.03, 0.13) if night else rng.uniform(0.65, 1.05),
        head=rng.uniform(0.0, 0.5) if night and rng.random() < 0.7 else 0.0,
        tint=rng.uniform(0.85, 1.1, 3),
        texture_origin=(int(rng.integers(512)), int(rng.integers(512))),
        paved=bool(rng.random() < 0.3),
        sensor=_sensor(rng, night),
        lamps=lamps,
        objects=builder.objects,
    )
    if near:
        builder.add_near(scene.offset_m)
    return scene
