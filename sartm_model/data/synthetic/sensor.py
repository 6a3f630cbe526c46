"""The imperfections of the two cameras: exposure, blur, glow, noise and drift."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sartm_model.data.synthetic.canvas import Canvas
from sartm_model.data.synthetic.textures import NOISE_DEVIATION, piece, textures


@dataclass(frozen=True)
class Sensor:
    """Properties of the two cameras, constant in a sequence.

    Lengths in pixels are for an image 640 pixels wide.

    Attributes:
        tint: white balance of RGB, one factor per channel.
        black: grey level of black in RGB.
        rgb_noise, thermal_noise: standard deviation of the noise, in grey levels.
        rgb_blur, thermal_blur: standard deviation of the point spread, in pixels.
        motion_px: length of the horizontal motion blur of RGB, in pixels.
        gain, offset: gain of thermal about grey level 70, and offset in grey levels.
        drift: amplitude of the smooth spatial drift of thermal, in grey levels.
    """

    tint: np.ndarray
    black: float
    rgb_noise: float
    thermal_noise: float
    rgb_blur: float
    thermal_blur: float
    motion_px: float
    gain: float
    offset: float
    drift: float

    def expose_rgb(self, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
        """Convert a drawn scene to the image of the RGB camera, uint8 `[H, W, 3]`.

        Args:
            canvas: the scene as it was drawn.
            rng: random numbers for the noise of this frame.
        """
        bank = textures()
        height, width = canvas.labels.shape
        size, scale = (width, height), width / 640
        ramp = np.arange(256)[:, None] * self.tint
        rgb = cv2.LUT(canvas.rgb, np.clip(ramp, 0, 255).astype(np.uint8)[None])
        if self.rgb_blur * scale > 0.3:
            rgb = _blur(rgb, self.rgb_blur * scale)
        if self.motion_px * scale >= 2:
            rgb = cv2.blur(rgb, (round(self.motion_px * scale), 1))
        rgb = cv2.add(rgb, cv2.resize(self._halo(canvas.glow, scale), size))
        grain = piece(bank['noise'], height, width, rng)
        noise = self.rgb_noise / NOISE_DEVIATION
        return cv2.addWeighted(rgb, 1, grain, noise, self.black - 128 * noise)

    def expose_thermal(self, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
        """Convert a drawn scene to the image of the thermal camera, uint8 `[H, W]`."""
        bank = textures()
        height, width = canvas.labels.shape
        size, scale = (width, height), width / 640
        thermal = _blur(canvas.thermal, max(0.4, self.thermal_blur * scale))
        soft = bank['soft'][::16, ::16].astype(np.float32)
        level = 70 + self.offset - 70 * self.gain
        heat = cv2.resize((soft / 64 - 2) * self.drift + level, size)
        stripes = rng.standard_normal(width).astype(np.float32)
        heat += np.float32(0.4 * self.thermal_noise) * stripes
        heat = cv2.scaleAdd(piece(bank['grain'], height, width, rng), self.thermal_noise, heat)
        heat = cv2.add(heat, cv2.LUT(thermal, self.gain * np.arange(256, dtype=np.float32)))
        return np.clip(heat, 0, 255).astype(np.uint8)

    def _halo(self, glow: np.ndarray, scale: float) -> np.ndarray:
        """Blur the glow into halos around the lamps, uint8 `[H / 4, W / 4, 3]`."""
        spread = max(1.0, 3 * scale)
        small = cv2.GaussianBlur(cv2.blur(glow, (4, 4))[::4, ::4], (0, 0), max(0.5, spread))
        wide = cv2.resize(small, glow.shape[1::-1])
        halo = cv2.scaleAdd(wide, 0.5, cv2.GaussianBlur(glow, (0, 0), spread))
        return cv2.convertScaleAbs(halo * self.tint.astype(np.float32))


def _blur(image: np.ndarray, deviation: float) -> np.ndarray:
    """Apply a Gaussian blur with a kernel of two standard deviations to each side."""
    size = 2 * max(1, round(2 * deviation)) + 1
    return cv2.GaussianBlur(image, (size, size), deviation)
