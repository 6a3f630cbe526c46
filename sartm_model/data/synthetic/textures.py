"""The textures of the scenes: ground, foliage and noise."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TILE = 512
NOISE_TILE = 1024
NOISE_DEVIATION = 32.0
GROUND_TILE_M = 24.0
"""Length in metres after which the ground texture repeats."""


def _octaves(rng: np.random.Generator, cells: list[int]) -> np.ndarray:
    """Generate periodic noise with features of the given sizes in pixels.

    Returns:
        float32 `[TILE, TILE]` with mean 0 and standard deviation 1.
    """
    total = np.zeros((TILE, TILE), np.float32)
    for cell in cells:
        grid = rng.standard_normal((TILE // cell, TILE // cell)).astype(np.float32)
        padded = np.pad(grid, 2, mode='wrap')
        size = (TILE // cell + 4) * cell
        whole = cv2.resize(padded, (size, size), interpolation=cv2.INTER_CUBIC)
        total += whole[2 * cell : 2 * cell + TILE, 2 * cell : 2 * cell + TILE] * np.sqrt(cell)
    return (total - total.mean()) / total.std()


@lru_cache(maxsize=1)
def textures() -> dict[str, np.ndarray]:
    """Generate the textures of all scenes, once per process (about 0.1 s).

    Returns:
        By name, uint8 with mean 128 unless stated otherwise:

        noise: white noise `[1024, 1024, 3]` with standard deviation 32.
        grain: white noise `[1024, 1024]`, float32 with mean 0 and standard deviation 1.
        soft: low-frequency noise `[TILE, TILE]`.
        leaf: noise of medium frequency `[3 TILE, 3 TILE]`.
        asphalt, paved: `[TILE, TILE, 2]`, grain and patches of shade.
    """
    rng = np.random.default_rng(20240611)

    def texture(values: np.ndarray, deviation: float) -> np.ndarray:
        return np.clip(128 + deviation * values, 0, 255).astype(np.uint8)

    asphalt = _octaves(rng, [1, 2, 32])
    joints = np.zeros((TILE, TILE), np.float32)
    joints[::16] = -2.5
    for row in range(0, TILE, 16):
        joints[row : row + 16, (row // 16 % 2) * 8 :: 16] = -2.5
    blocks = np.kron(rng.standard_normal((TILE // 16, TILE // 16)), np.ones((16, 16)))
    paving = 0.4 * asphalt + joints + 0.6 * blocks
    shade = np.tanh(3 * (_octaves(rng, [64, 32]) - 0.3))
    ground = {
        name: cv2.merge([texture(grain, deviation), texture(shade, 100)])
        for name, grain, deviation in (('asphalt', asphalt, 12), ('paved', paving, 22))
    }
    return {
        'noise': texture(rng.standard_normal((NOISE_TILE, NOISE_TILE, 3)), NOISE_DEVIATION),
        'grain': rng.standard_normal((NOISE_TILE, NOISE_TILE), np.float32),
        'soft': texture(_octaves(rng, [64, 32, 16, 8]), 30),
        'leaf': np.tile(texture(_octaves(rng, [32, 16, 8, 4]), 45), (3, 3)),
        **ground,
    }


def tile(texture: np.ndarray, height: int, width: int, origin: tuple[int, int]) -> np.ndarray:
    """Cut a piece `[height, width]` from a periodic texture, from `origin` (row, column) on."""
    rows, columns = texture.shape[:2]
    top, left = origin[0] % rows, origin[1] % columns
    down, right = -(-(top + height) // rows), -(-(left + width) // columns)
    if (down, right) != (1, 1):
        texture = np.tile(texture, (down, right) + (1,) * (texture.ndim - 2))
    return texture[top : top + height, left : left + width]


def piece(noise: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a random piece from a noise texture, without a copy if the texture is large enough."""
    room = (max(1, NOISE_TILE - height), max(1, NOISE_TILE - width))
    return tile(noise, height, width, (int(rng.integers(room[0])), int(rng.integers(room[1]))))
