"""Scenery: kerbs, bumps and paint on the ground, and what stands beside the road.

See `objects` for the interface. `band` and `bump` have the classes `curve` and `bump`. All else is
'unlabeled', so that a network cannot take everything that stands out for an object.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.data.synthetic.canvas import CIRCLE, Pen
from sartm_model.data.synthetic.objects import Draw, points, upright
from sartm_model.data.synthetic.surfaces import Material


def edge_path(
    rng: np.random.Generator, start: float, stop: float, across: float, side: float
) -> np.ndarray:
    """Return points (across, along) `[N, 2]` of an edge of the road, which may turn at a corner."""
    along = start + (stop - start) * np.linspace(0, 1, 24) ** 2
    path = np.column_stack((np.full(24, across), along))
    if rng.random() < 0.4:
        radius = rng.uniform(2, 8)
        angle = np.linspace(0, np.pi / 2, 8)[1:]
        arc = np.column_stack(
            (across + side * radius * (1 - np.cos(angle)), stop + radius * np.sin(angle))
        )
        path = np.concatenate((path, arc, np.add(arc[-1:], (side * 20, 0.0))))
    return path


def band(rng: np.random.Generator, path: np.ndarray, width: float, *, night: bool) -> Draw:
    """Draw a kerb or painted line of `width` metres along `path` `[N, 2]`.

    The position of the object is the last point of the path.
    """
    tone = rng.uniform(150, 245) * np.array([1.0, 1.0, rng.uniform(0.8, 1.0)])
    heat = 70 + rng.choice([-1.0, 1.0]) * rng.uniform(6, 12) + (0 if night else rng.uniform(-9, 9))
    last = path[:, 1].max()

    def draw(pen: Pen, _: float) -> None:
        camera = pen.canvas.camera
        along = path[:, 1] - last + pen.z
        first = int(np.searchsorted(along, 1.0)) if along[0] < 1.0 else 0
        ahead, across = along[first:], path[first:, 0]
        if first:  # continue to the bottom of the image
            ahead = np.concatenate(([1.0], ahead))
            across = np.concatenate((path[first - 1 : first, 0], across))
        if len(ahead) < 2:
            return
        step = np.gradient(np.column_stack((across, ahead)), axis=0)
        normal = np.column_stack((step[:, 1], -step[:, 0])) / np.hypot(*step.T)[:, None]
        middle = np.column_stack((camera.lateral(ahead, across), ahead))
        edges = np.concatenate((middle - width / 2 * normal, (middle + width / 2 * normal)[::-1]))
        strip = np.column_stack((edges[:, 0], np.zeros(len(edges)), edges[:, 1]))
        pen.canvas.fill(
            [camera.project(strip)], *pen.tones(tone, heat), pen.label, material=Material.MATTE
        )

    return draw


def bump(rng: np.random.Generator, half: float, depth: float, *, night: bool) -> Draw:
    """Draw a speed bump across the road: painted stripes, or a band of other paving."""
    heat = 70 + rng.choice([-1.0, 1.0]) * rng.uniform(6, 12) + (0 if night else rng.uniform(-9, 20))
    striped = rng.random() < 0.6
    tone = np.array([225.0, 190, 60]) if rng.random() < 0.5 else np.full(3, 225.0)
    base = 55.0 if striped else rng.choice([45.0, 150.0])
    stripes, slant = int(rng.integers(5, 12)), rng.uniform(-0.4, 0.4)

    def draw(pen: Pen, _: float) -> None:
        area = points((-half, 0, 0), (half, 0, 0), (half, 0, depth), (-half, 0, depth))
        pen.fill(area, base, heat)
        cells = np.linspace(-half, half, 2 * stripes + 1)
        if striped:
            for left, right in zip(cells[:-1:2], cells[1::2], strict=False):
                pen.fill(points((left, 0, 0), (right, 0, 0), (right + slant, 0, depth),
                                (left + slant, 0, depth)), tone, heat + 2)  # fmt: skip
        else:
            for z in np.linspace(0.1, 0.9, 5) * depth:
                pen.line(points((-half, 0, z), (half, 0, z)), 0.03, 0.5 * base, heat - 3)

    return draw


def marking(rng: np.random.Generator, kind: str, road: float) -> Draw:
    """Draw an unlabeled mark on the road: an 'arrow', a 'crossing', 'dashes' or a 'patch'.

    A patch is a repaired, darker or lighter piece of road.
    """
    tone, heat = rng.uniform(140, 230), 70 + rng.normal(0, 2)
    turn = rng.uniform(-0.6, 0.6)

    def draw(pen: Pen, _: float) -> None:
        if kind == 'crossing':
            for x in np.arange(-road, road, 0.9) - pen.x - pen.canvas.camera.right_m:
                pen.fill(
                    points((x, 0, 0), (x + 0.45, 0, 0), (x + 0.45, 0, 3), (x, 0, 3)), tone, heat
                )
        elif kind == 'dashes':
            for z in np.arange(0, 40, 6.0):
                if pen.z + z > 1:
                    stroke = points(
                        (-0.07, 0, z), (0.07, 0, z), (0.07, 0, z + 3), (-0.07, 0, z + 3)
                    )
                    pen.fill(stroke, tone, heat)
        elif kind == 'arrow':
            head = [(-0.12, 0), (0.12, 0), (0.12 + turn, 2), (0.5 + turn, 2), (turn, 3.4),
                    (-0.5 + turn, 2), (-0.12 + turn, 2)]  # fmt: skip
            pen.fill(np.array([(x, 0.0, z) for x, z in head]), tone, heat)
        else:
            dark = 60 + 0.5 * (tone - 140)
            shape = points((-1, 0, 0), (1.2, 0, 0.4), (1, 0, 3), (-1.1, 0, 2.6))
            pen.fill(shape, dark, heat + turn * 12)

    return draw


def facade(rng: np.random.Generator, length: float, inward: float, *, night: bool) -> Draw:
    """Draw a building beside the road.

    Its far end is at z = 0, and it extends `length` metres towards the camera. `inward` is the sign
    of x in the direction of the road.
    """
    tall = rng.uniform(5, 20)
    tone = rng.uniform(50, 190) * rng.uniform(0.8, 1.1, 3)
    heat = rng.uniform(62, 80) if night else rng.uniform(55, 110)
    window_heat = heat + rng.choice([-6.0, 8.0, 14.0])
    glow = np.array([255, rng.uniform(215, 255), rng.uniform(140, 235)])
    columns, rows = int(length / 3.2), int(tall / 3.3)
    lit = rng.random((rows, columns)) < (rng.uniform(0, 0.5) if night else 0.0)
    far = -inward * 12.0

    def draw(pen: Pen, _: float) -> None:
        near = max(-length, 1.5 - pen.z)
        if near >= -0.5:
            return
        end = points((0, 0, near), (0, tall, near), (far, tall, near), (far, 0, near))
        front = points((0, 0, near), (0, tall, near), (0, tall, 0), (0, 0, 0))
        hidden = [pen.pixels(part).astype(np.int32) for part in (end, front)]
        cv2.fillPoly(pen.canvas.leaves, hidden, 0)
        pen.fill(end, 0.8 * tone, heat - 3)
        pen.fill(front, tone, heat)
        z0 = -length + 1.0 + 3.2 * np.arange(columns)[None, :]
        y0 = 1.0 + 3.3 * np.arange(rows)[:, None]
        z0, y0 = np.broadcast_to(z0, lit.shape), np.broadcast_to(y0, lit.shape)
        z = np.stack((z0, z0, z0 + 1.6, z0 + 1.6), -1)
        y = np.stack((y0, y0 + 1.6, y0 + 1.6, y0), -1)
        panes = pen.pixels(np.stack((np.zeros_like(z), y, z), -1))
        ahead = z0 + pen.z > 1.5
        dark, bright = panes[ahead & ~lit], panes[ahead & lit]
        if len(dark):
            pen.canvas.fill(
                list(dark), *pen.tones(0.45 * tone, window_heat), 0, material=Material.GLASS
            )
        if len(bright):
            pen.canvas.fill(
                list(bright), *pen.tones(glow, window_heat + 8, True), 0,
                material=Material.LIT_GLASS,
            )  # fmt: skip
            for pane in bright[:: max(1, len(bright) // 6)]:
                pen.canvas.shine(pane.mean(0), 0.5 * pen.scale, 0.35 * glow)

    return draw


def tree(rng: np.random.Generator, *, night: bool) -> Draw:
    """Draw a tree: a trunk that is still warm from the day, and a crown of overlapping discs."""
    tall, wide, trunk = rng.uniform(4, 9), rng.uniform(1.5, 3.2), rng.uniform(0.12, 0.45)
    heat = rng.uniform(55, 68) if night else rng.uniform(50, 85)
    green = np.array([45.0, 75, 25]) * rng.uniform(0.6, 1.5)
    crown = rng.normal(0, 0.45, (7, 2)) * wide + (0, tall)
    radii = rng.uniform(0.4, 0.8, 7) * wide

    def draw(pen: Pen, _: float) -> None:
        pen.fill(upright([(-trunk, 0), (trunk, 0), (0.6 * trunk, tall), (-0.6 * trunk, tall)]),
                 (70, 60, 50), heat + 6)  # fmt: skip
        discs = [pen.place(upright(c + r * CIRCLE)) for c, r in zip(crown, radii, strict=True)]
        shapes = [pen.canvas.camera.project(disc) for disc in discs]
        for index, (shape, disc) in enumerate(zip(shapes, discs, strict=True), start=-1):
            shade, warmth = (0.8 + 0.07 * index, 0.7 * index - 2) if index >= 0 else (1, 0)
            pen.canvas.fill([shape], *pen.tones(shade * green, heat + warmth), 0,
                            material=Material.FOLIAGE, points=disc)  # fmt: skip
        cv2.fillPoly(pen.canvas.leaves, [s.astype(np.int32) for s in shapes], 255)

    return draw


def hedge(rng: np.random.Generator, length: float, side: float, *, night: bool) -> Draw:
    """Draw a hedge along the road, from its far end at z = 0 `length` metres to the camera."""
    tall = rng.uniform(0.6, 1.6)
    heat = rng.uniform(55, 68) if night else rng.uniform(55, 90)
    green = np.array([50.0, 85, 30]) * rng.uniform(0.6, 1.4)

    def draw(pen: Pen, _: float) -> None:
        near = max(-length, 2.0 - pen.z)
        if near >= -0.5:
            return
        for x, z in ((0.0, None), (side * 1.2, near)):
            if z is None:
                shape = points((0, 0, near), (0, tall, near), (0, tall, 0), (0, 0, 0))
            else:
                shape = points((0, 0, z), (0, tall, z), (x, tall, z), (x, 0, z))
            pen.fill(shape, green if z is None else 0.8 * green, heat, material=Material.FOLIAGE)
            cv2.fillPoly(pen.canvas.leaves, [pen.pixels(shape).astype(np.int32)], 255)

    return draw


def signpost(rng: np.random.Generator, *, night: bool) -> Draw:
    """Draw a pole with a round, a square or no sign."""
    tall, heat = rng.uniform(2, 3.2), 70 + rng.normal(0, 8) + (0 if night else 10)
    kind, tone = rng.integers(3), rng.choice([90.0, 180.0])
    face = np.array([[200.0, 30, 30], [40, 70, 190], [220, 220, 215]])[rng.integers(3)]

    def draw(pen: Pen, _: float) -> None:
        pen.line(points((0, 0, 0), (0, tall, 0)), 0.07, tone, heat, material=Material.METAL)
        if kind:
            ring = CIRCLE if kind == 1 else CIRCLE[[0, 3, 6, 9]]
            plate = upright(0.3 * ring + (0, tall - 0.3))
            pen.fill(plate, face, heat - 4, material=Material.METAL)

    return draw


def street_lamp(rng: np.random.Generator, tall: float, *, night: bool) -> Draw:
    """Draw a street lamp, lit at night."""
    heat = 70 + rng.normal(0, 6)
    glow = np.array([rng.uniform(180, 255), 255, rng.uniform(150, 235)])

    def draw(pen: Pen, _: float) -> None:
        pen.line(points((0, 0, 0), (0, tall, 0)), 0.1, 120, heat, material=Material.METAL)
        pen.fill(upright(0.18 * CIRCLE + (0, tall)), 200, heat + (45 if night else 5))
        if night:
            pen.lamp((0.0, tall, 0.0), 0.16, glow)

    return draw
