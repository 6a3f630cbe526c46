"""Persons, cones, barriers and guardrails: their appearance and temperature.

Each function draws the properties of one object at random (its size, colours, temperatures) and
returns a function that draws the object with a `Pen` at a time in seconds. Dimensions are realistic
and in metres; temperatures are grey levels as in MFNet's night frames (road about 70, skin about
150).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sartm_model.data.synthetic.canvas import CIRCLE, Pen
from sartm_model.data.synthetic.surfaces import Material

DETAIL_PX = 16.0
"""Details such as spokes, hands and shoes are drawn only above this many pixels per metre."""

Draw = Callable[[Pen, float], None]


def points(*rows: tuple[float, float, float]) -> np.ndarray:
    """Return the points (x, y, z) as an array `[N, 3]`."""
    return np.asarray(rows, float)


def upright(xy: np.ndarray | list[tuple[float, float]], z: float = 0.0) -> np.ndarray:
    """Return the points (x, y) as `[N, 3]` in the vertical plane at `z`."""
    points = np.full((len(xy), 3), z)
    points[:, :2] = xy
    return points


def disc(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """Return the points `[12, 3]` of an ellipse about (x, y) in the vertical plane at z = 0."""
    return upright(CIRCLE * (radius_x, radius_y) + (x, y))


def person(rng: np.random.Generator, *, night: bool, riding: bool = False) -> Draw:
    """Draw a person who walks or stands, or rides a bicycle with bent legs."""
    size = rng.uniform(0.85, 1.08)
    build = rng.uniform(0.85, 1.2)
    top, bottom = rng.choice([18.0, 40.0, 90.0, 200.0], (2, 1)) + rng.uniform(-12, 30, (2, 3))
    skin, hair = np.array([190.0, 145.0, 120.0]) * rng.uniform(0.6, 1.1), rng.uniform(10, 50)
    warm = rng.uniform(96, 124) if night else rng.uniform(105, 150)
    coat, trousers = warm + rng.uniform(-12, 8), warm + rng.uniform(-12, 10)
    head = warm + rng.uniform(15, 50)
    sideways = rng.random() < 0.5
    stride = (0.26 if sideways else 0.06) * rng.uniform(0.4, 1.1)
    phase, pace = rng.uniform(0, 2 * np.pi), rng.uniform(5, 7.5)
    swing = rng.uniform(0.02, 0.2)
    shoulder = (0.15 if sideways else 0.22) * build
    bag = rng.random() < 0.35
    bag_tone, bag_heat = rng.uniform(15, 160), warm - rng.uniform(15, 30)
    skirt = rng.random() < 0.2
    lift = 0.28 if riding else 0.0

    def limb(start: tuple[float, float], stop: tuple[float, float], width: float) -> np.ndarray:
        (x0, y0), (x1, y1) = start, stop
        w = width / 2
        return upright([(x0 - w, y0), (x0 + w, y0), (x1 + 0.8 * w, y1), (x1 - 0.8 * w, y1)])

    def draw(pen: Pen, time_s: float) -> None:
        step = stride * np.sin(phase + pace * time_s)
        shift = np.array([0.0, lift, 0.0])

        def part(shape: np.ndarray, albedo: np.ndarray | float, heat: float) -> None:
            pen.fill((shape + shift) * (size, size, 1), albedo, heat)

        hip, width = 0.88, 0.15 * build
        near = pen.scale > DETAIL_PX
        for sign in (-1.0, 1.0):
            foot = 0.07 * sign + sign * step
            rise = 0.06 * max(0.0, np.cos(phase + pace * time_s) * sign) if not riding else 0.3
            knee = (0.075 * sign + 0.6 * sign * step, 0.47)
            part(limb((0.07 * sign, hip), knee, width), bottom, trousers)
            part(limb(knee, (foot, 0.05 + rise * 0.5), 0.8 * width), bottom, trousers - 4)
            if not near:
                continue
            shoe = disc(foot + 0.03, 0.04 + rise * 0.5, 0.09, 0.045)
            part(shoe, 40, trousers - 12)
        if skirt:
            part(
                upright([(-0.14, 0.95), (0.14, 0.95), (0.22, 0.45), (-0.22, 0.45)]),
                bottom,
                trousers,
            )
        for sign in (-1.0, 1.0):
            hand = (sign * (shoulder + 0.05) - sign * step * 0.7, 0.8 + swing * 0.5)
            part(limb((sign * shoulder, 1.38), hand, 0.1 * build), 0.9 * top, coat - 3)
            if near:
                part(disc(hand[0], hand[1], 0.045, 0.05), skin, head - 8)
        torso = [(-shoulder, 1.42), (-0.06, 1.5), (0.06, 1.5), (shoulder, 1.42),
                 (0.8 * shoulder + 0.02, 0.85), (-0.8 * shoulder - 0.02, 0.85)]  # fmt: skip
        part(upright(torso), top, coat)
        if bag:
            part(disc(0.12 if sideways else 0, 1.18, 0.14, 0.22), bag_tone, bag_heat)
        part(disc(0, 1.61, 0.105, 0.135), skin, head)
        hood = upright([(-0.11, 1.6), (-0.1, 1.7), (0, 1.77), (0.1, 1.7), (0.11, 1.6), (0, 1.66)])
        part(hood, hair, head - 16)

    return draw


def cone(rng: np.random.Generator, *, night: bool) -> Draw:
    """Draw a traffic cone: orange or red, sometimes green or blue, often with white bands."""
    tints = np.array([[235, 85, 25], [225, 40, 35], [40, 170, 80], [45, 70, 210]], float)
    paint = tints[rng.choice(4, p=[0.5, 0.3, 0.1, 0.1])] * rng.uniform(0.8, 1.05)
    heat = 70 + rng.choice([-1.0, 1.0]) * rng.uniform(8, 18) + (0 if night else rng.uniform(0, 30))
    tall, bands = rng.uniform(0.65, 0.8), int(rng.integers(0, 3))

    def draw(pen: Pen, _: float) -> None:
        foot = points((-0.19, 0, -0.19), (0.19, 0, -0.19), (0.19, 0.04, 0.19), (-0.19, 0.04, 0.19))
        pen.fill(foot, 0.7 * paint, heat - 2, hull=True)

        def slice_(low: float, high: float) -> np.ndarray:
            a, b = 0.15 - 0.12 * low, 0.15 - 0.12 * high
            return upright([(-a, low * tall), (a, low * tall), (b, high * tall), (-b, high * tall)])

        pen.fill(slice_(0.02, 1.0), paint, heat)
        for band in range(bands):
            low = 0.38 + 0.3 * band
            pen.fill(slice_(low, low + 0.16), 235, heat - 3)

    return draw


def car_stop(rng: np.random.Generator, *, night: bool, kind: str) -> Draw:
    """Draw an obstacle for cars: a 'post', a concrete 'block', a movable 'fence' or a low 'bar'."""
    heat = (
        70 + rng.choice([-1.0, 1.0]) * rng.uniform(7, 14) + (0 if night else rng.uniform(-15, 15))
    )
    tone = rng.choice([60.0, 130.0, 215.0]) * np.array(
        [1.0, rng.uniform(0.9, 1), rng.uniform(0.8, 1)]
    )
    width = {'post': 0.16, 'block': 0.7, 'fence': 1.5, 'bar': 1.8}[kind] * rng.uniform(0.85, 1.2)
    height = {'post': 0.8, 'block': 0.5, 'fence': 0.95, 'bar': 0.16}[kind] * rng.uniform(0.85, 1.15)
    band = rng.random() < 0.5

    def box(low: float, high: float, left: float, right: float) -> np.ndarray:
        return upright([(left, low), (left, high), (right, high), (right, low)])

    def draw(pen: Pen, _: float) -> None:
        w, metal = width / 2, Material.METAL
        if kind == 'fence':
            pen.outline(box(0, height, -w, w))
            for x in np.linspace(-w, w, 9):
                pen.line(box(0.12, height, x, x)[:2], 0.035, tone, heat, material=metal)
            for y in (0.14, height):
                pen.line(points((-w, y, 0), (w, y, 0)), 0.06, tone, heat, material=metal)
            for x in (-0.7 * w, 0.7 * w):
                pen.fill(box(0, 0.12, x - 0.09, x + 0.09), 0.7 * tone, heat - 2)
            return
        depth = 0.0 if kind == 'post' else 0.45 * min(width, 0.7)
        if depth:
            lid = points((-w, height, 0), (w, height, 0), (w, height, depth), (-w, height, depth))
            pen.fill(lid, np.minimum(255, 1.2 * tone), heat + 3)
        pen.fill(box(0, height, -w, w), tone, heat)
        if kind == 'post':
            pen.fill(disc(0, height, w, 0.4 * w), np.minimum(255, 1.2 * tone), heat + 3)
        if band and kind != 'block':
            stripe = (200, 160, 30) if kind == 'bar' else (225, 225, 225)
            pen.fill(box(0.75 * height, 0.88 * height, -w, w), stripe, heat - 2)

    return draw


def guardrail(rng: np.random.Generator, *, night: bool) -> Draw:
    """Draw a guardrail along +z; its label covers the gaps too, as annotators draw it."""
    heat = (
        70 + rng.choice([-1.0, 1.0]) * rng.uniform(10, 24) + (0 if night else rng.uniform(-20, 15))
    )
    tone = rng.choice([120.0, 200.0, 230.0]) * np.array([1.0, 1.0, 0.97])
    length, height = rng.uniform(6, 20), rng.uniform(0.7, 0.95)
    plate = rng.random() < 0.4
    steps = np.linspace(0, length, max(3, round(length / 2)))
    up = np.array([0.0, height, 0.0])

    def draw(pen: Pen, _: float) -> None:
        first = max(0.0, 1.2 - pen.z)  # the part behind the camera is omitted
        along = np.concatenate(([first], steps[steps > first]))
        if len(along) < 2:
            return
        foot = np.column_stack((np.zeros_like(along), np.zeros_like(along), along))
        pen.outline(np.concatenate((foot[[0, -1]], foot[[-1, 0]] + up)))
        for post in foot:
            pen.line(
                np.stack((post, post + up)), 0.08, 0.8 * tone, heat - 2, material=Material.METAL
            )
        bands = [(0.45, 1.0)] if plate else [(0.9, 1.0), (0.5, 0.58)]
        for low, high in bands:
            strip = np.concatenate((foot[[0, -1]] + low * up, foot[[-1, 0]] + high * up))
            pen.fill(strip, tone, heat, material=Material.METAL)

    return draw
