"""Draws a scene at one moment: sky, ground and light, then the objects from far to near."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from sartm_model.data.synthetic.canvas import Canvas, Pen
from sartm_model.data.synthetic.scene import Scene, SceneObject
from sartm_model.data.synthetic.surfaces import Material, Surfaces
from sartm_model.data.synthetic.textures import GROUND_TILE_M, TILE, textures, tile

SMALLEST_PX = 5.0
"""Objects that would be lower than this in an image of 480 rows are left out."""

FINEST_GROUND_M = 0.3
"""Length of ground in a pixel from which on `Scene.smooth_ground` fades the texture."""


def paint(
    scene: Scene,
    time_s: float,
    height: int,
    width: int,
    *,
    with_surfaces: bool = False,
    leaves_s: float | None = None,
) -> Canvas:
    """Draw the scene after `time_s` seconds, without the blur and noise of the cameras.

    Args:
        scene: what is drawn.
        time_s: moment of the drive.
        height, width: size in pixels.
        with_surfaces: whether geometry and materials are drawn, too.
        leaves_s: the moment at which the texture of foliage has its place in the image; `time_s` if
            None. Images of another moment or of another camera of an array show the same leaves.
    """
    leaves_move = leaves_s not in (None, time_s) or scene.view_m != (0.0, 0.0)
    travelled = scene.speed * time_s
    camera = scene.camera(height, width, time_s)
    surfaces = None
    if with_surfaces or leaves_move:
        surfaces = Surfaces(camera, foliage_alone=not with_surfaces)
    canvas = Canvas(camera, surfaces)
    present = []
    for obj in scene.objects:
        ahead = obj.along + obj.velocity[0] * time_s - travelled
        across = obj.across + obj.velocity[1] * time_s
        if ahead > 1.2:
            x = float(camera.lateral(ahead, across))
            present.append((ahead, x, obj))
    present.sort(key=lambda entry: -entry[0])

    _paint_sky(canvas, scene)
    _paint_ground(canvas, scene)
    for ahead, x, obj in present:
        if obj.flat:
            obj.draw(_pen(canvas, scene, obj, x, ahead, np.ones(3)), time_s)
    _light_ground(canvas, scene, travelled)
    least = SMALLEST_PX * height / 480
    for ahead, x, obj in present:
        if not obj.flat and (not obj.label or camera.focal * obj.extent[1] / ahead > least):
            amount = float(scene.light(x, ahead, travelled))
            light = max(amount, obj.fill_light if scene.night else 0.0) * scene.tint
            obj.draw(_pen(canvas, scene, obj, x, ahead, light), time_s)
    leaf = tile(textures()['leaf'], height, width, scene.texture_origin)
    if leaves_move:
        leaf = _moved(leaf, canvas, scene, time_s, time_s if leaves_s is None else leaves_s)
    _texture_leaves(canvas, leaf)
    return canvas


def _pen(
    canvas: Canvas, scene: Scene, obj: SceneObject, x: float, z: float, light: np.ndarray
) -> Pen:
    return Pen(
        canvas,
        (x, z),
        yaw=obj.yaw + (canvas.camera.curvature * z if not obj.flat else 0.0),
        light=light,
        rgb_contrast=obj.rgb_contrast,
        thermal_contrast=obj.thermal_contrast,
        extent=obj.extent,
        label=obj.label,
    )


def _paint_sky(canvas: Canvas, scene: Scene) -> None:
    """Draw the sky down to the horizon, and distant trees and roofs on the horizon."""
    camera = canvas.camera
    rows = int(np.clip(camera.horizon + 1, 1, camera.height))
    up = np.linspace(1, 0, rows)[:, None]
    zenith, haze = ((12.0, 13, 16), 20.0) if scene.night else ((150.0, 190, 235), 235.0)
    column = np.clip((np.array(zenith) * up + haze * (1 - up)) * scene.ambient, 0, 255)
    sky = np.repeat(column.astype(np.uint8)[:, None], camera.width, axis=1)
    np.copyto(canvas.rgb[:rows], sky)
    rng = np.random.default_rng(scene.texture_origin)
    coldest = rng.uniform(8, 45) if scene.night else rng.uniform(5, 30)
    canvas.thermal[:rows] = (coldest + (60 - coldest) * 0.7 * (1 - up)).astype(np.uint8)
    # At 90 m: roofs as a step function, and in front of them tree tops as a sum of sines.
    edges = np.repeat(np.linspace(-70, 70, 15), 2)[1:-1]
    roofs = np.repeat(rng.choice([-3.0, 6.0, 10.0, 16.0, 24.0], 14), 2)
    across = np.linspace(-70, 70, 90)
    waves = rng.uniform(2, 14) + sum(
        rng.uniform(0.3, 1.5) * np.sin(rng.uniform(0.1, 1) * across + p) for p in range(6)
    )
    tones = np.array([[70.0, 66, 60], [48, 62, 42]]) * scene.tint * scene.ambient
    for x, tops, tone, heat in ((edges, roofs, tones[0], 68.0), (across, waves, tones[1], 63.0)):
        line = np.stack((x * 0.9 / scene.focal, np.maximum(tops, -3), np.full(len(x), 90.0)), -1)
        line[:, 0] -= camera.right_m
        feet = np.array([[line[-1, 0], -3, 90.0], [line[0, 0], -3, 90.0]])
        polygon = camera.project(np.concatenate((line, feet)))
        canvas.fill([polygon], tone, heat, None, material=Material.FOLIAGE, points=line)
    cv2.fillPoly(canvas.leaves, [polygon.astype(np.int32)], 255)


def _paint_ground(canvas: Canvas, scene: Scene) -> None:
    """Draw verge, pavement and road, without light and texture."""
    camera = canvas.camera
    top = int(np.clip(camera.horizon + 1, 0, camera.height - 1))
    rng = np.random.default_rng(scene.texture_origin)
    grass = rng.random() < 0.5
    # One row lower, because the antialiased edge extends one row upwards.
    below = np.array([[0, top + 1], [camera.width, top + 1], [camera.width, camera.height + 1],
                      [0, camera.height + 1]])  # fmt: skip
    canvas.fill([below], (60, 80, 40) if grass else (95, 92, 88), 63 if grass else 69, None)
    canvas.leaves[top:] = 0
    if canvas.surfaces is not None:
        canvas.surfaces.fill_ground(top + 1, Material.FOLIAGE if grass else Material.PAVEMENT)
    along = 1.0 + 119 * np.linspace(0, 1, 30) ** 2
    for half, tone, heat, material in (
        (
            scene.road_half_m + rng.uniform(1, 4),
            rng.uniform(90, 130),
            rng.uniform(68, 74),
            Material.PAVEMENT,
        ),
        (scene.road_half_m, rng.uniform(60, 95), rng.uniform(67, 73), Material.ROAD),
    ):
        left, right = (
            np.stack((camera.lateral(along, side * half), np.zeros(30), along), -1)
            for side in (-1, 1)
        )
        strip = camera.project(np.concatenate((left, right[::-1])))
        canvas.fill([strip], (tone, tone, 0.97 * tone), heat, None, material=material)


def _light_ground(canvas: Canvas, scene: Scene, travelled: float) -> None:
    """Multiply the ground by its texture, which moves with it, and by the light on it."""
    camera = canvas.camera
    top = int(np.clip(camera.horizon + 1, 0, camera.height - 1))
    rows, columns = camera.height - top, camera.width
    # Half the resolution is enough, because the noise of the cameras hides finer texture.
    half_rows, half_columns = -(-rows // 2), -(-columns // 2)
    # A pixel shows the ground at z = focal mount / (row - horizon), x = z (column - W/2) / focal.
    # With the scale of the texture this is a homography T: texel = T (column, row, 1).
    scale = TILE / GROUND_TILE_M
    reach = camera.focal * camera.mount_m
    row0 = top - camera.horizon
    shift_x = scene.texture_origin[0] + scale * camera.right_m
    shift_z = (scene.texture_origin[1] + scale * travelled) % TILE
    to_texel = np.array(
        [
            [
                scale * camera.mount_m,
                shift_x,
                shift_x * row0 - scale * camera.mount_m * columns / 2,
            ],
            [0.0, shift_z, scale * reach + shift_z * row0],
            [0.0, 1.0, row0],
        ]
    )
    texels = cv2.warpPerspective(
        textures()['paved' if scene.paved else 'asphalt'],
        to_texel @ np.diag([2.0, 2.0, 1.0]),
        (half_columns, half_rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    if scene.smooth_ground:
        distance = reach / np.maximum(2 * np.arange(half_rows) + row0, 1.0)
        row_m = 2 * distance**2 / reach  # length of ground in a row of the texture
        kept = np.clip(FINEST_GROUND_M / row_m, 0, 1)[:, None, None]
        texels = np.rint(128 + kept * (texels - 128.0)).astype(np.uint8)
    grain, patches = cv2.split(texels)

    cell = 8
    v = np.maximum(np.arange(-(-rows // cell)) * cell + cell / 2 + row0, 1.0)
    z = (reach / v)[:, None]
    x = (np.arange(-(-columns // cell)) * cell + cell / 2 - columns / 2)[None, :] * z / camera.focal
    light = scene.light(x, np.broadcast_to(z, (len(v), x.shape[1])), travelled)
    factor = cv2.resize(light.astype(np.float32), (half_columns, half_rows))
    factor = cv2.multiply(factor, grain, scale=1 / 128, dtype=cv2.CV_32F)
    if not scene.night:
        factor = cv2.multiply(factor, cv2.LUT(patches, np.linspace(0.5, 1, 256, dtype=np.float32)))
    factor = cv2.resize(factor, (columns, rows))
    ground = canvas.rgb[top:]
    lit = cv2.merge([factor * tint for tint in scene.tint.astype(np.float32)])
    cv2.multiply(ground, lit, dst=ground, dtype=cv2.CV_8U)

    weight = 0.03 if scene.night else 0.12  # ground in the sun is warmer
    warmth = cv2.addWeighted(grain, 0.06, patches, weight, 128 * (1 - weight) - 7.7)
    warmth = cv2.resize(warmth, (columns, rows))
    heat = canvas.thermal[top:]
    cv2.addWeighted(heat, 1, warmth, 1, -128, dst=heat)


def _moved(
    image: np.ndarray, canvas: Canvas, scene: Scene, time_s: float, other_s: float
) -> np.ndarray:
    """Return what a camera sees where the central camera of the array sees `image` at `other_s`.

    A point at (x, y, z) from the one is at (x + right, y + up, z + advance) from the other.

    Args:
        image: `[H, W]`.
        canvas: what the camera sees at `time_s`, with the surfaces on which the image lies.
        scene: the scene of the camera, whose place is `scene.view_m`.
        time_s, other_s: the moments.
    """
    assert canvas.surfaces is not None
    height, width = image.shape
    central = replace(scene, view_m=(0.0, 0.0)).camera(height, width, other_s)
    inverse = canvas.surfaces.inverse_depth
    (right, up), advance = scene.view_m, scene.speed * (time_s - other_s)
    x, y = canvas.surfaces.x, canvas.surfaces.y
    nearer = 1 / (1 + advance * inverse)
    columns = width / 2 + central.focal * (x + right * inverse) * nearer
    rows = central.horizon - central.focal * (y + up * inverse) * nearer
    return cv2.remap(
        image, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip


def _texture_leaves(canvas: Canvas, leaf: np.ndarray) -> None:
    """Add the texture `leaf` to foliage, with holes that show the cold sky."""
    height = canvas.camera.height
    top = int(np.clip(canvas.camera.horizon + 0.1 * height, 1, height))
    window = np.s_[:top]
    piece = leaf[window]
    foliage = canvas.leaves[window] * (canvas.labels[window] == 0)
    textured = cv2.multiply(canvas.rgb[window], cv2.merge([piece] * 3), scale=1 / 110)
    cv2.copyTo(textured, foliage, canvas.rgb[window])
    warmer = cv2.addWeighted(canvas.thermal[window], 1, piece, 0.06, -7.7)
    cv2.copyTo(warmer, foliage, canvas.thermal[window])
    high = np.s_[: int(np.clip(0.6 * canvas.camera.horizon, 1, top))]
    canvas.thermal[high][(piece[high] > 205) & (foliage[high] > 0)] = 12
