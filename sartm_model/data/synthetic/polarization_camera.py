"""The polarisation camera of the scenes: four images of the light behind polarisers.

Light that a smooth surface reflects is polarised across the plane of incidence, and light that
comes out of the body of a surface, weakly, along it. With the angle t between the surface's normal
and the view, and the refractive index n, the degrees are (Atkinson and Hancock, 2006)

    specular:  2 s^2 c r / (n^2 - s^2 - n^2 s^2 + 2 s^4),
    diffuse:   (n - 1/n)^2 s^2 / (2 + 2 n^2 - (n + 1/n)^2 s^2 + 4 c r),

where s = sin t, c = cos t and r = sqrt(n^2 - s^2). A material mixes the two, and its roughness
depolarises. The sky by day is polarised around the sun, as single scattering makes it.

The camera sees what RGB sees, in grey, with an exposure of its own. In the dark its noise hides the
angle and gives a random degree.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from sartm_model.data.synthetic.canvas import Canvas
from sartm_model.data.synthetic.surfaces import Material
from sartm_model.data.synthetic.textures import piece, textures
from sartm_model.modalities.polarization import ANGLES, from_four_angles

INDEX = 1.5
"""Refractive index of glass, lacquer and water."""

GLOSS = {
    # material: share of specular light, share of the polarisation that roughness leaves
    Material.SKY: (1.0, 0.0),
    Material.MATTE: (0.15, 0.25),
    Material.FOLIAGE: (0.25, 0.15),
    Material.PAVEMENT: (0.65, 0.25),
    Material.ROAD: (0.75, 0.5),
    Material.LACQUER: (0.65, 0.8),
    Material.METAL: (0.7, 0.4),
    Material.GLASS: (0.95, 1.0),
    Material.LIT_GLASS: (0.3, 0.3),
}

WET = 0.4
"""Share of the scenes with a wet road and a wet pavement."""

WET_GLOSS = (0.85, 0.9)

SKY_DEGREE = 0.3
"""Degree of the sky by day at a right angle to the sun: haze leaves this much of it."""

EXPOSED = 90.0
MOST_GAIN = 10.0
"""The exposure brings the mean to this grey level, but amplifies no more than this."""

READ_NOISE = 0.4
SHOT_NOISE = 0.05
"""Standard deviation of the noise without light, in grey levels, and its variance a grey level."""


def measure(
    canvas: Canvas, night: bool, constant: np.random.Generator, rng: np.random.Generator
) -> np.ndarray:
    """Measure the angle and the degree of polarisation.

    Args:
        canvas: what the camera sees, with surfaces.
        night: whether the sky is dark.
        constant: random numbers for what is constant in a sequence.
        rng: random numbers for the noise of this frame.

    Returns:
        uint8 `[H, W, 3]`, see `sartm_model.modalities.polarization`.
    """
    wet = constant.random() < WET
    azimuth, elevation = constant.uniform(-np.pi, np.pi), constant.uniform(0.3, 1.1)
    sun = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation),
                    np.cos(azimuth) * np.cos(elevation)])  # fmt: skip
    light = cv2.cvtColor(canvas.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cosine, sine, degree = polarization(canvas, wet, None if night else sun)
    gain = float(np.clip(EXPOSED / max(float(light.mean()), 1.0), 1, MOST_GAIN))
    height, width = light.shape
    images = []
    for angle in ANGLES:
        twice = math.radians(2 * float(angle))
        along = math.cos(twice) * cosine + math.sin(twice) * sine
        passed = 0.5 * light * (1 + degree * along)
        deviation = np.sqrt(READ_NOISE**2 + SHOT_NOISE * passed)
        noisy = passed + deviation * piece(textures()['grain'], height, width, rng)
        images.append(np.clip(gain * noisy, 0, 255))
    return from_four_angles(images)


def polarization(
    canvas: Canvas, wet: bool, sun: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cosine and sine of twice the angle, and the degree from 0 to 1, without noise.

    Args:
        canvas: what the camera sees, with surfaces.
        wet: whether the ground is wet.
        sun: direction to the sun `[3]`; None by night.
    """
    surfaces = canvas.surfaces
    assert surfaces is not None
    normals, material = surfaces.normals, surfaces.material
    if sun is not None:
        # The sky is polarised across the plane of the view and the sun: the sun is its normal.
        normals = np.where((material == Material.SKY)[..., None], sun.astype(np.float32), normals)
    x, y = surfaces.x, surfaces.y
    cosine_t = normals[..., 0] * x + normals[..., 1] * y + normals[..., 2]
    cosine_t = np.abs(cosine_t / np.sqrt(1 + x**2 + y**2)).clip(0, 1)
    specular, diffuse = degrees(cosine_t)
    gloss = np.array([GLOSS[kind] for kind in Material], np.float32)
    if wet:
        gloss[[Material.ROAD, Material.PAVEMENT]] = WET_GLOSS
    share, left = cv2.split(gloss[material])
    signed = left * (share * specular - (1 - share) * diffuse)
    if sun is not None:
        sine_squared = 1 - cosine_t**2
        sky = SKY_DEGREE * sine_squared / (1 + cosine_t**2)
        signed = np.where(material == Material.SKY, sky, signed)
    # Across the plane of incidence: the direction of view x normal, in the image.
    across = y * normals[..., 2] - normals[..., 1]
    up = normals[..., 0] - x * normals[..., 2]
    squared = np.maximum(across**2 + up**2, 1e-12)
    sign = np.sign(signed)
    return sign * (across**2 - up**2) / squared, sign * 2 * across * up / squared, np.abs(signed)


def degrees(cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the degrees of specular and of diffuse light for the cosine of the angle t."""
    n, c = INDEX, cosine
    s2 = 1 - c**2
    root = np.sqrt(n**2 - s2)
    specular = 2 * s2 * c * root / (n**2 - s2 - n**2 * s2 + 2 * s2**2)
    body = (n - 1 / n) ** 2 * s2 / (2 + 2 * n**2 - (n + 1 / n) ** 2 * s2 + 4 * c * root)
    return specular, body
