"""Cars and bicycles, as solids that can be seen from any side. See `objects` for the interface."""

from __future__ import annotations

import numpy as np

from sartm_model.data.synthetic.canvas import Pen
from sartm_model.data.synthetic.objects import DETAIL_PX, Draw, disc, points
from sartm_model.data.synthetic.surfaces import Material

SIDES = {
    # Outlines of body and cabin: (distance from the rear, height), relative to length and height.
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


def car(rng: np.random.Generator, *, night: bool, running: bool) -> Draw:
    """Draw a saloon, hatchback, van or lorry whose front points to +z in its own frame."""
    kind = str(rng.choice(list(SIDES), p=[0.35, 0.3, 0.25, 0.1]))
    length, width, height = np.array(SIZES[kind]) * rng.uniform(0.92, 1.08)
    paint = np.full(3, rng.choice([25.0, 60.0, 130.0, 215.0, 235.0]))
    if rng.random() < 0.3:
        paint = rng.uniform(20, 200, 3)
    ambient = rng.uniform(56, 72) if night else rng.uniform(60, 140)
    body = ambient + (rng.uniform(8, 30) if running else rng.uniform(-4, 4))
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
        return points(
            (-half, low, z), (-half, high, z + lean), (half, high, z + lean), (half, low, z)
        )

    lower = np.concatenate((side(body_side, -width / 2), side(body_side, width / 2)))
    half = width / 2 - inset
    upper = np.concatenate((side(cabin_side, -width / 2), side(cabin_side, width / 2)))
    upper[:, 0] = np.where(upper[:, 1] > 0.8 * height, np.sign(upper[:, 0]) * half, upper[:, 0])
    middle = cabin_side.mean(0)
    windows = middle + (cabin_side - middle) * (0.82, 0.72)
    wheels = [(0.2, 0.0), (0.8, 0.0)]
    radius = 0.21 * height if kind != 'lorry' else 0.15 * height

    def draw(pen: Pen, _: float) -> None:
        lacquer = Material.LACQUER
        # The position of the camera in the car's frame determines which sides are visible.
        across = -pen.cos * pen.x + pen.sin * pen.z
        ahead = -pen.sin * pen.x - pen.cos * pen.z
        near = 1.0 if across > 0 else -1.0
        front = ahead > 0
        shadow = points((-half, 0, -length / 2), (half, 0, -length / 2), (half, 0, length / 2),
                        (-half, 0, length / 2))  # fmt: skip
        label, pen.label = pen.label, 0
        pen.fill(shadow, 12, 74 + (12 if running else 0), hull=True, material=Material.ROAD)
        pen.label = label
        for along, _up in wheels:
            z = (along - 0.5) * length
            for x in (-near, near):
                rim = disc(0, radius, radius, radius)[:, [2, 1, 0]] + (x * (width / 2 - 0.05), 0, z)
                pen.fill(rim, 18, tyre)
                if x == near:
                    pen.fill((rim - rim.mean(0)) * 0.55 + rim.mean(0), 95, tyre - 14)
        pen.fill(lower, 0.75 * paint, body - 2, hull=True, material=lacquer)
        pen.fill(upper, 0.85 * paint, body - 4, hull=True, material=lacquer)
        z = length / 2 if front else -length / 2
        side_visible = abs(across) > width / 2
        if side_visible:
            x = near * width / 2
            pen.fill(side(body_side, x), 0.9 * paint, body, material=lacquer)
            if kind != 'lorry':
                pane = side(windows, x)
                pane[:, 0] = np.where(pane[:, 1] > 0.8 * height, near * half, near * width / 2)
                pen.fill(pane, 22, glass, material=Material.GLASS)
            for along, _up in wheels:
                at = (x, 0.0, (along - 0.5) * length)
                rim = disc(0, radius, radius, radius)[:, [2, 1, 0]] + at
                pen.fill(rim, 16, tyre)
                pen.fill((rim - rim.mean(0)) * 0.55 + rim.mean(0), 110, tyre - 12)
        if abs(ahead) > length / 2:
            face = end(z, width / 2 * 0.97, 0.2 * height, 0.56 * height)
            pen.fill(face, paint, body + 3, material=lacquer)
            lean = (cabin_side[-1] if front else cabin_side[0])[0]
            top = (cabin_side[-2] if front else cabin_side[1])[0]
            z_low, z_top = (lean - 0.5) * length, (top - 0.5) * length
            pane = end(z_low, half * 0.95, 0.62 * height, 0.94 * height, 0.8 * (z_top - z_low))
            if kind == 'lorry' and not front:
                back = end(z, half, 0.45 * height, 0.98 * height)
                pen.fill(back, 0.95 * paint, body - 2, material=lacquer)
            else:
                pen.fill(pane, 25, glass, material=Material.GLASS)
            warm = end(z, 0.6 * half, 0.24 * height, 0.42 * height)
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


def bicycle(rng: np.random.Generator, *, night: bool, lamp: bool = False) -> Draw:
    """Draw a bicycle that points to +z in its own frame; its label covers the gaps too."""
    ambient = 70 + rng.choice([-1.0, 1.0], p=[0.35, 0.65]) * rng.uniform(10, 24)
    if not night:
        ambient += rng.uniform(0, 35)
    paint = rng.choice([30.0, 90.0, 190.0]) + rng.uniform(-15, 60, 3)
    shine = rng.uniform(90, 230)
    radius = rng.uniform(0.28, 0.35)
    base = rng.uniform(0.48, 0.56)
    basket = rng.random() < 0.5

    def draw(pen: Pen, _: float) -> None:
        side_view = np.abs(pen.cos * pen.x - pen.sin * pen.z) / np.hypot(pen.x, pen.z)
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
            if side_view > 0.25 and pen.scale > DETAIL_PX:
                pen.line(ring, 0.045, 28, ambient + 4, closed=True)
                pen.line(ring[[0, 6, 3, 9, 0]] * (1, 0.95, 1), 0.008, shine, ambient)
                pen.line(ring * (1, 0.93, 0.99), 0.015, shine, ambient - 4, closed=True)
            else:
                pen.line(ring if side_view > 0.25 else ring[[3, 9]], 0.06, 30, ambient + 4)
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
