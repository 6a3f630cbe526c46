"""Procedural night scenes in MFNet's nine classes, to train and to test without any data.

A road in perspective with buildings, trees, street lamps and things of every class is drawn as
two cameras would see it: RGB by the light that falls on it (head lights, street lamps, little
else), thermal by how warm it is. Three of four scenes are at night.

Neither modality is enough. At night each thing (each group, where things come in groups) shows in

| class | both | RGB alone | thermal alone |
|---|---|---|---|
| car | 50 % | 20 % | 30 % |
| person | 50 % | 5 % | 45 % |
| bike | 40 % | 35 % | 25 % |
| curve | 35 % | 45 % | 20 % |
| car_stop | 35 % | 40 % | 25 % |
| guardrail | 40 % | 35 % | 25 % |
| color_cone | 35 % | 45 % | 20 % |
| bump | 30 % | 45 % | 25 % |

(of the moving cars, 60 % are made to show in both before this is drawn), and by day 70, 22 and
8 % for every class. 'Alone' means that 5 % of its contrast to what surrounds it is left in the
other modality. As in MFNet, `curve` is a kerb or a line along the road's edge, `car_stop` is what
keeps cars out (posts, blocks, fences, low bars), and other paint on the road is unlabeled.

A frame is determined by its seed and size.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from sartm_model.datasets.base import Condition, Frame, PairDataset
from sartm_model.datasets.synthetic_canvas import (
    GROUND_TILE_M,
    TILE,
    Camera,
    Canvas,
    Pen,
    textures,
    tile,
)
from sartm_model.datasets.synthetic_scene import Scene, Thing, build
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET

NIGHT_FRACTION = 0.75
SMALLEST_PX = 5.0
"""A thing that would be lower than this, for an image 480 high, is left out."""

SPLITS = {'train': (0, 4000), 'val': (1, 200), 'test': (2, 100)}
"""Of each split: the number its seeds start with, and how many frames it has by default.

The default test split has 100 frames: enough for each class to occur dozens of times, few enough
to be evaluated in a minute on a CPU.
"""


def render(
    seed: int | tuple[int, ...],
    height: int = 480,
    width: int = 640,
    *,
    condition: Condition | None = None,
) -> Frame:
    """One scene: rgb uint8 `[H, W, 3]`, thermal uint8 `[H, W]`, labels uint8 `[H, W]` (no 255).

    Args:
        seed: determines the scene; a tuple of ints is a seed of its own.
        height, width: at least 16 pixels each.
        condition: 'day' or 'night'; drawn with the seed if None.

    Raises:
        SartmError: the size is too small.
    """
    return next(render_sequence(seed, 1, height, width, condition=condition))


def render_sequence(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 480,
    width: int = 640,
    *,
    rate_hz: float = 10.0,
    condition: Condition | None = None,
) -> Iterator[Frame]:
    """A drive through one scene: the camera moves at walking pace and people and cars move too.

    Frames are named `<seed>_<place in the sequence>`; a sequence of one has the name of its seed.
    The arguments and what is raised are those of `render`.
    """
    if height < 16 or width < 16:
        raise SartmError(f'a scene of {width}x{height} pixels is too small; 16x16 is the least')
    key = (seed,) if isinstance(seed, int) else tuple(seed)
    rng = np.random.default_rng((*key, 0))
    night = rng.random() < NIGHT_FRACTION
    if condition is not None:
        night = condition == 'night'
    scene = build(rng, night, duration_s=(frames - 1) / rate_hz)
    stem = '_'.join(f'{part:06d}' for part in key)
    for index in range(frames):
        canvas = _draw(scene, index / rate_hz, height, width)
        noise = np.random.default_rng((*key, 1, index))
        rgb, thermal = scene.sensor.expose(canvas, noise)
        yield Frame(
            name=stem if frames == 1 else f'{stem}_{index:04d}',
            rgb=rgb,
            thermal=thermal,
            labels=canvas.labels,
            condition='night' if night else 'day',
        )


class SyntheticScenes(PairDataset):
    """`length` scenes of a split; the splits share no seed.

    Raises:
        SartmError: unknown split, or no frames.
    """

    label_space = MFNET

    def __init__(
        self, split: str, length: int | None = None, height: int = 480, width: int = 640
    ) -> None:
        if split not in SPLITS:
            raise SartmError(
                f'the synthetic scenes have no split {split!r}; choose one of {", ".join(SPLITS)}'
            )
        self._first, default = SPLITS[split]
        length = default if length is None else length
        if length < 1:
            raise SartmError(f'{length} synthetic scenes were asked for; 1 is the least')
        self._size = (height, width)
        self.names = [f'{self._first:06d}_{index:06d}' for index in range(length)]

    def __getitem__(self, index: int) -> Frame:
        place = range(len(self))[index]  # IndexError where a sequence would raise one
        return render((self._first, place), *self._size)


def _draw(scene: Scene, time_s: float, height: int, width: int) -> Canvas:
    """The scene as it is after `time_s`, before the cameras' blur and noise."""
    travelled = scene.speed * time_s
    camera = scene.camera(height, width, time_s)
    canvas = Canvas(camera)
    present = []
    for thing in scene.things:
        ahead = thing.along + thing.velocity[0] * time_s - travelled
        across = thing.across + thing.velocity[1] * time_s
        if ahead > 1.2:
            x = float(camera.lateral(ahead, across))
            present.append((ahead, x, thing))
    present.sort(key=lambda entry: -entry[0])

    _paint_sky(canvas, scene)
    _paint_ground(canvas, scene)
    for ahead, x, thing in present:
        if thing.flat:
            thing.draw(_pen(canvas, scene, thing, x, ahead, np.ones(3)), time_s)
    _light_ground(canvas, scene, travelled)
    least = SMALLEST_PX * height / 480
    for ahead, x, thing in present:
        if not thing.flat and (not thing.label or camera.focal * thing.extent[1] / ahead > least):
            amount = float(scene.light(x, ahead, travelled))
            light = max(amount, thing.fill_light if scene.night else 0.0) * scene.tint
            thing.draw(_pen(canvas, scene, thing, x, ahead, light), time_s)
    _texture_leaves(canvas, scene)
    return canvas


def _pen(
    canvas: Canvas, scene: Scene, thing: Thing, x: float, z: float, light: np.ndarray
) -> Pen:
    return Pen(
        canvas,
        (x, z),
        yaw=thing.yaw + (canvas.camera.curvature * z if not thing.flat else 0.0),
        light=light,
        rgb_contrast=thing.rgb_contrast,
        thermal_contrast=thing.thermal_contrast,
        extent=thing.extent,
        label=thing.label,
    )


def _paint_sky(canvas: Canvas, scene: Scene) -> None:
    """Sky down to the horizon, and a line of far trees and roofs on it."""
    camera = canvas.camera
    rows = int(np.clip(camera.horizon + 1, 1, camera.height))
    up = np.linspace(1, 0, rows)[:, None]
    if scene.night:
        canvas.rgb[:rows] = (1 + 60 * scene.ambient * np.array([0.8, 0.9, 1.2]))[None, None]
    else:
        blue = np.array([150.0, 190, 235]) * up[..., None] + 235 * (1 - up[..., None])
        canvas.rgb[:rows] = np.clip(blue * scene.ambient, 0, 255)
    canvas.thermal[:rows] = 12 + 30 * (1 - up)
    rng = np.random.default_rng(scene.texture_origin)
    across = np.linspace(-60, 60, 120)
    # Roofs (steps) and tree tops (waves) 90 m away.
    coarse = np.repeat(rng.choice([2.0, 5.0, 9.0, 14.0, 20.0], 12), 10)
    waves = 5 + sum(rng.uniform(0.3, 1.5) * np.sin(rng.uniform(0.1, 1) * across + p) for p in range(6))
    tops = np.maximum(np.where(np.repeat(rng.random(12) < 0.5, 10), coarse, waves), 2)
    xz = np.stack((across * 0.9 / scene.focal, tops, np.full(120, 90.0)), -1)
    base = np.array([[xz[-1, 0], -3, 90.0], [xz[0, 0], -3, 90.0]])
    line = camera.project(np.concatenate((xz, base)))
    green = np.array([48.0, 62, 42]) * scene.tint * scene.ambient
    canvas.fill([line], green, 63.0, None)
    cv2.fillPoly(canvas.leaves, [line.astype(np.int32)], 255)


def _paint_ground(canvas: Canvas, scene: Scene) -> None:
    """Verge, pavement and road, unlit and without texture."""
    camera = canvas.camera
    top = int(np.clip(camera.horizon + 1, 0, camera.height - 1))
    rng = np.random.default_rng(scene.texture_origin)
    grass = rng.random() < 0.5
    canvas.rgb[top:] = (60, 80, 40) if grass else (95, 92, 88)
    canvas.thermal[top:] = 63 if grass else 69
    canvas.leaves[top:] = 0
    along = 1.0 + 119 * np.linspace(0, 1, 30) ** 2
    for half, tone, heat in (
        (scene.road_half_m + rng.uniform(1, 4), rng.uniform(90, 130), rng.uniform(68, 74)),
        (scene.road_half_m, rng.uniform(60, 95), rng.uniform(67, 73)),
    ):
        left, right = (
            np.stack((camera.lateral(along, side * half), np.zeros(30), along), -1)
            for side in (-1, 1)
        )
        strip = camera.project(np.concatenate((left, right[::-1])))
        canvas.fill([strip], (tone, tone, 0.97 * tone), heat, None)


def _light_ground(canvas: Canvas, scene: Scene, travelled: float) -> None:
    """Give the ground its texture, which moves with it, and the light that falls on it."""
    camera = canvas.camera
    top = int(np.clip(camera.horizon + 1, 0, camera.height - 1))
    rows, columns = camera.height - top, camera.width
    scale = TILE / GROUND_TILE_M
    # Pixel -> ground (x, z) -> texel: z = focal mount / (row - horizon), x = z (column - W/2) / focal
    reach = camera.focal * camera.mount_m
    shift_x, shift_z = scene.texture_origin[0], scene.texture_origin[1] + scale * travelled
    row0 = top - camera.horizon
    to_texel = np.array([
        [scale * camera.mount_m, shift_x, -scale * camera.mount_m * columns / 2 + shift_x * row0],
        [0.0, shift_z % TILE, scale * reach + (shift_z % TILE) * row0],
        [0.0, 1.0, row0],
    ])  # fmt: skip
    texels = cv2.warpPerspective(
        textures()['paved' if scene.paved else 'asphalt'], to_texel, (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    grain, patches = cv2.split(texels)

    cell = 8
    v = np.maximum(np.arange(-(-rows // cell)) * cell + cell / 2 + row0, 1.0)
    z = (reach / v)[:, None]
    x = (np.arange(-(-columns // cell)) * cell + cell / 2 - columns / 2)[None, :] * z / camera.focal
    light = scene.light(x, np.broadcast_to(z, (len(v), x.shape[1])), travelled)
    factor = cv2.resize(light.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
    factor = cv2.multiply(factor, grain, scale=1 / 128, dtype=cv2.CV_32F)
    if not scene.night:
        factor *= cv2.LUT(patches, (0.5 + 0.5 * np.arange(256) / 255).astype(np.float32))
    ground = canvas.rgb[top:]
    lit = cv2.merge([factor * tint for tint in scene.tint.astype(np.float32)])
    cv2.multiply(ground, lit, dst=ground, dtype=cv2.CV_8U)
    heat = canvas.thermal[top:]
    weight = 0.03 if scene.night else 0.12  # what lay in the sun is warmer
    level = -128 * weight - 7.7
    cv2.add(heat, cv2.addWeighted(grain, 0.06, patches, weight, level, dtype=cv2.CV_8S), dst=heat, dtype=cv2.CV_8U)


def _texture_leaves(canvas: Canvas, scene: Scene) -> None:
    """Break foliage up into light and dark, with holes through which the cold sky shows."""
    height, width = canvas.labels.shape
    leaf = tile(textures()['leaf'], height, width, scene.texture_origin)
    foliage = (canvas.leaves > 0) & (canvas.labels == 0)
    top = int(np.clip(canvas.camera.horizon + 0.1 * height, 1, height))
    window = np.s_[:top]
    mask = foliage[window].view(np.uint8)
    piece = leaf[window]
    textured = cv2.multiply(canvas.rgb[window], cv2.merge([piece] * 3), scale=1 / 110)
    cv2.copyTo(textured, mask, canvas.rgb[window])
    warmer = cv2.addWeighted(canvas.thermal[window], 1, piece, 0.06, -7.7)
    holes = (piece > 215) & (np.arange(top) < 0.6 * canvas.camera.horizon)[:, None]
    warmer[holes] = 12
    cv2.copyTo(warmer, mask, canvas.thermal[window])
