"""The things in the procedural scenes of `synthetic`: how each looks and how warm it is.

A function here draws at random what one thing is like (its style) and returns a function that
draws it with a `Pen` at a time in seconds. Proportions are those of real things, in metres; the
temperatures are grey levels as MFNet's night frames show them (road about 70, skin about 150).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sartm_model.datasets.synthetic_canvas import ANGLES, Pen

Draw = Callable[[Pen, float], None]

SIDES = {
    # (along from the rear bumper, up), as fractions of length and height: body, then cabin
    'saloon': (
        [(0, 0.2), (0, 0.55), (0.16, 0.6), (0.7, 0.6), (0.97, 0.52), (1, 0.2)],
        [(0.14, 0.58), (0.26, 1), (0.58, 1), (0.74, 0.58)],
    ),
    'hatchback': (
        [(0, 0.2), (0, 0.6), (0.74, 0.58), (0.98, 0.5), (1, 0.2)],
        [(0.01, 0.56), (0.08, 0.96), (0.15, 1), (0.6, 1), (0.78, 0.56)],
    ),
    'van': (
        [(0, 0.15), (0, 0.55), (0.95, 0.52), (1, 0.45), (1, 0.15)],
        [(0, 0.5), (0.02, 0.98), (0.05, 1), (0.8, 1), (0.96, 0.5)],
    ),
    'lorry': (
        [(0, 0.2), (0, 0.4), (0.76, 0.4), (0.77, 0.78), (0.94, 0.76), (1, 0.45), (1, 0.18)],
        [(0, 0.38), (0, 1), (0.74, 1), (0.74, 0.38)],
    ),
}
SIZES = {  # length, width, height
    'saloon': (4.6, 1.75, 1.42),
    'hatchback': (4.0, 1.7, 1.52),
    'van': (4.6, 1.85, 1.95),
    'lorry': (6.5, 2.2, 3.0),
}


def points(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(rows, float)


def upright(xy: np.ndarray | list[tuple[float, float]], z: float = 0.0) -> np.ndarray:
    """Points `[N, 3]` of a figure in the plane across the view."""
    flat = np.asarray(xy, float)
    return np.column_stack((flat, np.full(len(flat), z)))


def disc(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    return upright(np.stack((x + radius_x * np.cos(ANGLES), y + radius_y * np.sin(ANGLES)), -1))


def car(rng: np.random.Generator, *, night: bool, running: bool) -> Draw:
    """A saloon, hatchback, van or lorry whose front points to +z in its own frame."""
    kind = str(rng.choice(list(SIDES), p=[0.35, 0.3, 0.25, 0.1]))
    length, width, height = np.array(SIZES[kind]) * rng.uniform(0.92, 1.08)
    paint = np.full(3, rng.choice([25.0, 60.0, 130.0, 215.0, 235.0]))
    if rng.random() < 0.3:
        paint = rng.uniform(20, 200, 3)
    ambient = rng.uniform(54, 66) if night else rng.uniform(60, 140)
    body = ambient + (rng.uniform(8, 22) if running else rng.uniform(-4, 4))
    glass = ambient - rng.uniform(2, 12)
    tyre = body + (rng.uniform(15, 45) if running else rng.uniform(-3, 6))
    hot = body + (rng.uniform(30, 90) if running else 0)
    lit = night and running

    body_side, cabin_side = (np.array(side, float) for side in SIDES[kind])
    inset = 0.04 * width if kind in ('van', 'lorry') else 0.13 * width

    def side(outline: np.ndarray, x: float) -> np.ndarray:
        along, up = (outline[:, 0] - 0.5) * length, outline[:, 1] * height
        return np.column_stack((np.full(len(outline), x), up, along))

    def end(z: float, half: float, low: float, high: float, lean: float = 0.0) -> np.ndarray:
        return points((-half, low, z), (-half, high, z + lean), (half, high, z + lean), (half, low, z))

    lower = np.concatenate((side(body_side, -width / 2), side(body_side, width / 2)))
    half = width / 2 - inset
    upper = np.concatenate((side(cabin_side, -width / 2), side(cabin_side, width / 2)))
    upper[:, 0] = np.where(upper[:, 1] > 0.8 * height, np.sign(upper[:, 0]) * half, upper[:, 0])
    middle = cabin_side.mean(0)
    windows = middle + (cabin_side - middle) * (0.82, 0.72)
    wheels = [(0.2, 0.0), (0.8, 0.0)]
    radius = 0.21 * height if kind != 'lorry' else 0.15 * height

    def draw(pen: Pen, _: float) -> None:
        # The camera's place in the car's own frame tells which side and which end it sees.
        across = -pen.cos * pen.x + pen.sin * pen.z
        ahead = -pen.sin * pen.x - pen.cos * pen.z
        near = 1.0 if across > 0 else -1.0
        front = ahead > 0
        shadow = points((-half, 0, -length / 2), (half, 0, -length / 2), (half, 0, length / 2),
                        (-half, 0, length / 2))  # fmt: skip
        label, pen.label = pen.label, 0
        pen.fill(shadow, 12, 74 + (12 if running else 0), hull=True)
        pen.label = label
        for along, _up in wheels:
            z = (along - 0.5) * length
            for x in (-near, near):
                rim = disc(0, radius, radius, radius)[:, [2, 1, 0]] + (x * (width / 2 - 0.05), 0, z)
                pen.fill(rim, 18, tyre)
                if x == near:
                    pen.fill((rim - rim.mean(0)) * 0.55 + rim.mean(0), 95, tyre - 14)
        pen.fill(lower, 0.75 * paint, body - 2, hull=True)
        pen.fill(upper, 0.85 * paint, body - 4, hull=True)
        z = length / 2 if front else -length / 2
        sides_seen = abs(across) > width / 2
        if sides_seen:
            x = near * width / 2
            pen.fill(side(body_side, x), 0.9 * paint, body)
            if kind != 'lorry':
                pane = side(windows, x)
                pane[:, 0] = np.where(pane[:, 1] > 0.8 * height, near * half, near * width / 2)
                pen.fill(pane, 22, glass)
            for along, _up in wheels:
                at = (x, 0.0, (along - 0.5) * length)
                rim = disc(0, radius, radius, radius)[:, [2, 1, 0]] + at
                pen.fill(rim, 16, tyre)
                pen.fill((rim - rim.mean(0)) * 0.55 + rim.mean(0), 110, tyre - 12)
        if abs(ahead) > length / 2:
            pen.fill(end(z, width / 2 * 0.97, 0.2 * height, 0.56 * height), paint, body + 3)
            lean = (cabin_side[-1] if front else cabin_side[0])[0]
            top = (cabin_side[-2] if front else cabin_side[1])[0]
            z_low, z_top = (lean - 0.5) * length, (top - 0.5) * length
            pane = end(z_low, half * 0.95, 0.62 * height, 0.94 * height, 0.8 * (z_top - z_low))
            if kind == 'lorry' and not front:
                pen.fill(end(z, half, 0.45 * height, 0.98 * height), 0.95 * paint, body - 2)
            else:
                pen.fill(pane, 25, glass)
            warm = points((-half * 0.6, 0.24 * height, z), (-half * 0.6, 0.42 * height, z),
                          (half * 0.6, 0.42 * height, z), (half * 0.6, 0.24 * height, z))  # fmt: skip
            pen.fill(warm, 0.5 * paint, hot if front else body + 0.3 * (hot - body))
            bumper = end(z, width / 2 * 0.97, 0.2 * height, 0.28 * height)
            pen.fill(bumper, 30, body - 1)
            for x in (-0.78, 0.78):
                at = (x * width / 2, 0.46 * height, z)
                lens = disc(0, 0, 0.14, 0.1) + at
                pen.fill(lens, (225, 225, 215) if front else (170, 20, 20), body + 8)
                if lit:
                    pen.lamp(at, 0.12, (255, 250, 225) if front else (190, 25, 20))

    return draw


def person(rng: np.random.Generator, *, night: bool, riding: bool = False) -> Draw:
    """A walking or standing person (or the upper part and bent legs of one on a bicycle)."""
    size = rng.uniform(0.85, 1.08)
    build = rng.uniform(0.85, 1.2)
    top, bottom = (rng.choice([18.0, 40.0, 90.0, 200.0]) + rng.uniform(-12, 30, 3) for _ in '01')
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
        for sign in (-1.0, 1.0):
            foot = 0.07 * sign + sign * step
            rise = 0.06 * max(0.0, np.cos(phase + pace * time_s) * sign) if not riding else 0.3
            knee = (0.075 * sign + 0.6 * sign * step, 0.47)
            part(limb((0.07 * sign, hip), knee, width), bottom, trousers)
            part(limb(knee, (foot, 0.05 + rise * 0.5), 0.8 * width), bottom, trousers - 4)
            shoe = disc(foot + 0.03, 0.04 + rise * 0.5, 0.09, 0.045)
            part(shoe, 40, trousers - 12)
        if skirt:
            part(upright([(-0.14, 0.95), (0.14, 0.95), (0.22, 0.45), (-0.22, 0.45)]), bottom, trousers)
        for sign in (-1.0, 1.0):
            hand = (sign * (shoulder + 0.05) - sign * step * 0.7, 0.8 + swing * 0.5)
            part(limb((sign * shoulder, 1.38), hand, 0.1 * build), 0.9 * top, coat - 3)
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


def bicycle(rng: np.random.Generator, *, night: bool, lamp: bool = False) -> Draw:
    """A bicycle that points to +z in its own frame; labelled with its outline filled."""
    ambient = rng.uniform(60, 80) if night else rng.uniform(60, 125)
    if abs(ambient - 70) < 6:
        ambient += 10 * np.sign(ambient - 70)
    paint = rng.choice([30.0, 90.0, 190.0]) + rng.uniform(-15, 60, 3)
    shine = rng.uniform(90, 230)
    radius = rng.uniform(0.28, 0.35)
    base = rng.uniform(0.48, 0.56)
    basket = rng.random() < 0.5

    def draw(pen: Pen, _: float) -> None:
        seen = np.abs(pen.cos * pen.x - pen.sin * pen.z) / np.hypot(pen.x, pen.z)
        rings = [disc(z, radius, radius, radius)[:, [2, 1, 0]] for z in (-base, base)]
        frame = points((0, radius, -base), (0, 0.75, -0.2), (0, 0.8, 0.38), (0, 0.3, 0.0),
                       (0, 0.75, -0.2), (0, 0.3, 0.0), (0, radius, -base))  # fmt: skip
        fork = points((0, radius, base), (0, 1.0, 0.36))
        bar = points((-0.26, 1.0, 0.3), (0.26, 1.0, 0.3))
        saddle = points((-0.07, 0.9, -0.32), (0.07, 0.9, -0.32), (0.05, 0.94, -0.05),
                        (-0.05, 0.94, -0.05))  # fmt: skip
        for ring in rings:
            pen.outline(ring)
        pen.outline(np.concatenate((frame, fork, saddle)))
        for ring in rings:
            if seen > 0.25:
                pen.line(ring, 0.045, 28, ambient + 4, closed=True)
                pen.line(ring[[0, 6, 3, 9, 0]] * (1, 0.95, 1), 0.008, shine, ambient)
                pen.line(ring * (1, 0.93, 0.99), 0.015, shine, ambient - 4, closed=True)
            else:
                pen.line(ring[[3, 9]], 0.06, 30, ambient + 4)
        pen.line(frame, 0.045, paint, ambient)
        pen.line(fork, 0.04, paint, ambient)
        pen.line(bar, 0.04, shine, ambient - 3)
        pen.fill(saddle, 25, ambient + 2, hull=True)
        if basket:
            crate = points((-0.17, 0.75, 0.45), (0.17, 0.75, 0.45), (0.17, 1.0, 0.72),
                           (-0.17, 1.0, 0.72), (-0.17, 0.75, 0.72), (0.17, 1.0, 0.45))  # fmt: skip
            pen.fill(crate, 0.6 * shine, ambient - 2, hull=True)
        if lamp:
            pen.lamp((0, 0.8, 0.5), 0.06, (255, 255, 235))

    return draw


def cone(rng: np.random.Generator, *, night: bool) -> Draw:
    """A traffic cone: orange or red, at times green or blue, often with white bands."""
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
    """What keeps cars out: a 'post', a concrete 'block', a movable 'fence' or a low 'bar'."""
    heat = 70 + rng.choice([-1.0, 1.0]) * rng.uniform(7, 14) + (0 if night else rng.uniform(-15, 15))
    tone = rng.choice([60.0, 130.0, 215.0]) * np.array([1.0, rng.uniform(0.9, 1), rng.uniform(0.8, 1)])
    width = {'post': 0.16, 'block': 0.7, 'fence': 1.5, 'bar': 1.8}[kind] * rng.uniform(0.85, 1.2)
    height = {'post': 0.8, 'block': 0.5, 'fence': 0.95, 'bar': 0.16}[kind] * rng.uniform(0.85, 1.15)
    band = rng.random() < 0.5

    def box(low: float, high: float, left: float, right: float) -> np.ndarray:
        return upright([(left, low), (left, high), (right, high), (right, low)])

    def draw(pen: Pen, _: float) -> None:
        w = width / 2
        if kind == 'fence':
            pen.outline(box(0, height, -w, w))
            for x in np.linspace(-w, w, 9):
                pen.line(box(0.12, height, x, x)[:2], 0.035, tone, heat)
            for y in (0.14, height):
                pen.line(points((-w, y, 0), (w, y, 0)), 0.06, tone, heat)
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
    """A stretch of guardrail along +z; labelled as the whole band, as annotators do."""
    heat = 70 + rng.choice([-1.0, 1.0]) * rng.uniform(8, 18) + (0 if night else rng.uniform(-20, 15))
    tone = rng.choice([120.0, 200.0, 230.0]) * np.array([1.0, 1.0, 0.97])
    length, height = rng.uniform(6, 20), rng.uniform(0.7, 0.95)
    plate = rng.random() < 0.4
    steps = np.linspace(0, length, max(3, round(length / 2)))

    def draw(pen: Pen, _: float) -> None:
        first = max(0.0, 1.2 - pen.z)  # the part behind the camera is left out
        along = np.concatenate(([first], steps[steps > first]))
        if len(along) < 2:
            return
        foot = np.column_stack((np.zeros_like(along), np.zeros_like(along), along))
        pen.outline(np.concatenate((foot[[0, -1]], foot[[-1, 0]] + (0, height, 0))))
        for post in foot:
            pen.line(np.stack((post, post + (0, height, 0))), 0.08, 0.8 * tone, heat - 2)
        bands = [(0.45, 1.0)] if plate else [(0.9, 1.0), (0.5, 0.58)]
        for low, high in bands:
            ends = foot[[0, -1]]
            strip = np.concatenate((ends + (0, low * height, 0), ends[::-1] + (0, high * height, 0)))
            pen.fill(strip, tone, heat)

    return draw
