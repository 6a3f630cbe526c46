"""The event camera of the scenes: it reports changes of the logarithm of the light at each pixel.

Between instants, the change of log intensity since a pixel's last event makes one event for each
contrast threshold (as in Rebecq et al., ESIM, 2018). What does not move relative to the camera, and
what has no edges, gives none but noise. The camera resolves dark scenes far better than RGB: it
sees the albedo of every object, also of those that RGB does not show. The light counts with a
small exponent, so that neither dark nor bright places are clipped by the 8 bits of a drawing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import Scene
from sartm_model.modalities.event import BRIGHTEST

WINDOW_S = 0.1
"""Events are those of this time up to the moment of the frame."""

THRESHOLD = (0.15, 0.3)
"""Change of log intensity that makes an event, lowest and highest of the scenes."""

MISMATCH = 0.12
"""Standard deviation of the threshold from pixel to pixel, relative to its mean."""

SPURIOUS = (0.002, 0.01)
"""Share of the pixels with an event of noise in a window, lowest and highest of the scenes."""

DARK = 4.0
"""Grey levels added to the light: below them the logarithm grows slowly."""

LIGHT_EXPONENT = 0.4

VISIBLE = 0.999
"""Contrast of objects that RGB does not show; below 1, as their lamps are off there too."""


def watch(
    scene: Scene,
    time_s: float,
    size: tuple[int, int],
    bins: int,
    constant: np.random.Generator,
    rng: np.random.Generator,
) -> np.ndarray:
    """Count the events of the window that ends at a moment.

    Args:
        scene: what is drawn.
        time_s: the moment.
        size: height and width in pixels.
        bins: number of parts of the window, all of the same length.
        constant: random numbers for what is constant in a sequence.
        rng: random numbers for the noise of this frame.

    Returns:
        float32 `[H, W, bins]`: the events in each bin, those of more light minus those of less.
    """
    instants = time_s - WINDOW_S * np.linspace(1, 0, bins + 1)
    return count(_light(scene, instants.tolist(), time_s, size), constant, rng)


def count(
    light: Iterable[np.ndarray], constant: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """Count the events between images of the light.

    Args:
        light: float32 `[H, W]`, grey levels, at each of two or more instants.
        constant, rng: see `watch`.

    Returns:
        float32 `[H, W, bins]`, see `watch`; a bin is the time from one image to the next.
    """
    first, *later = (np.log(image + DARK) for image in light)
    mean, spurious = constant.uniform(*THRESHOLD), constant.uniform(*SPURIOUS) / len(later)
    mismatch = constant.standard_normal(first.shape, np.float32)
    threshold = np.float32(mean) * (1 + MISMATCH * mismatch).clip(0.5, 1.5)
    # At the start of the window each pixel is somewhere between two events.
    level = first + threshold * (rng.random(first.shape, np.float32) - 0.5)
    voxels = np.empty((*first.shape, len(later)), np.float32)
    for index, now in enumerate(later):
        events = np.trunc((now - level) / threshold)
        level += events * threshold
        chance = rng.random(first.shape, np.float32)
        noise = (chance < spurious / 2).astype(np.float32) - (chance > 1 - spurious / 2)
        voxels[..., index] = events + noise
    return voxels


def as_image(voxels: np.ndarray) -> np.ndarray:
    """Return the events of all bins as uint8 `[H, W, 3]`: red for more light, blue for less.

    Full brightness is `BRIGHTEST` events.
    """
    total = voxels.sum(axis=2) * (255 / BRIGHTEST)
    channels = np.dstack([total, np.zeros_like(total), -total])
    return channels.clip(0, 255).astype(np.uint8)


def _light(
    scene: Scene, instants: list[float], leaves_s: float, size: tuple[int, int]
) -> Iterable[np.ndarray]:
    """Draw the light at each instant, float32 `[H, W]` in grey levels."""
    shown = [
        replace(thing, rgb_contrast=max(thing.rgb_contrast, VISIBLE)) for thing in scene.objects
    ]
    seen = replace(scene, objects=shown, light_exponent=LIGHT_EXPONENT, smooth_ground=True)
    for instant in instants:
        rgb = paint(seen, instant, *size, leaves_s=leaves_s).rgb
        yield cv2.transform(rgb.astype(np.float32), np.array([[0.299, 0.587, 0.114]], np.float32))
