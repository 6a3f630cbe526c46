"""Corruptions of images as real sensors cause them, at five severities, to measure robustness.

Each corruption is a function of a frame; `CorruptedDataset` applies one to a data set. Its random
numbers are seeded with the frame's name: every run and every network gets the same images, and a
higher severity makes the same draw worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import SELECTIONS
from sartm_model.utils.percentiles import percentiles

SEVERITIES = (1, 2, 3, 4, 5)

# One value per severity.
SHIFT = (0.005, 0.01, 0.02, 0.03, 0.05)  # of the width
THERMAL_NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to the image's range
DARK = (0.5, 0.25, 0.12, 0.05, 0.02)  # remaining fraction of the light
GLARE = (0.25, 0.5, 1.0, 1.5, 2.0)  # brightest added light, relative to white
RGB_NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to white

GAMMA = 2.2  # pixel value = light^(1 / GAMMA), about that of sRGB

Corruption = Callable[[Frame, int, np.random.Generator, Callable[[int], Frame]], Frame]
"""(frame, severity 1 to 5, random generator, function n -> frame n places earlier) -> frame."""


class CorruptedDataset(PairDataset):
    """A data set whose images are corrupted, or of which one modality is left out.

    Args:
        dataset: the original frames; their labels and names are kept.
        modality: which images the frames have, one of `SELECTIONS`.
        corruption: one of `CORRUPTIONS`, or None.
        severity: 1 to 5; None if and only if there is no corruption.

    Raises:
        SartmError: an unknown value, a severity without a corruption, a corruption without a
            severity, or a corruption of the modality that is left out.
    """

    def __init__(
        self,
        dataset: PairDataset,
        *,
        modality: str = 'both',
        corruption: str | None = None,
        severity: int | None = None,
    ) -> None:
        _check(modality, corruption, severity)
        self.label_space = dataset.label_space
        self.names = dataset.names
        self._dataset = dataset
        self._modality = modality
        self._corruption = corruption
        self._severity = severity

    def __getitem__(self, index: int) -> Frame:
        frame = self._dataset[index]
        if self._corruption is not None and self._severity is not None:
            rng = np.random.default_rng(list(f'{self._corruption} {frame.name}'.encode()))
            corrupt = CORRUPTIONS[self._corruption]
            frame = corrupt(
                frame, self._severity, rng, lambda places: self._dataset[max(index - places, 0)]
            )
        return replace(
            frame,
            rgb=None if self._modality == 'thermal' else frame.rgb,
            thermal=None if self._modality == 'rgb' else frame.thermal,
        )


def thermal_shift(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Move the thermal image by 0.5 to 5 % of its width in any direction, as bad calibration does.

    The pixels that come in from outside repeat the border.
    """
    thermal = _thermal(frame)
    height, width = thermal.shape
    angle = rng.uniform(0, 2 * np.pi)
    step = SHIFT[severity - 1] * width * np.array([np.cos(angle), np.sin(angle)])
    right, down = (np.sign(step) * np.ceil(np.abs(step))).astype(int).tolist()
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return replace(frame, thermal=thermal[rows][:, columns])


def thermal_noise(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Add Gaussian noise of 3 to 30 % of the range from the 1st to the 99th percentile to thermal.

    Half of its variance is one value per column, as in uncooled sensors, half one per pixel.
    """
    thermal = _thermal(frame)
    low, high = percentiles(thermal, (0.01, 0.99))
    deviation = THERMAL_NOISE[severity - 1] * max(high - low, 1.0) / np.sqrt(2)
    noise = rng.standard_normal(thermal.shape) + rng.standard_normal(thermal.shape[1])
    return replace(frame, thermal=_counts(thermal + deviation * noise, thermal.dtype))


def thermal_freeze(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Show the thermal image of `severity` frames earlier, as while a sensor's shutter is closed.

    The first frames show the first image. If the data set is not a sequence, the image shows
    another scene.
    """
    _thermal(frame)
    return replace(frame, thermal=_thermal(earlier(severity)))


def thermal_blackout(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Set the thermal image to its mean in 20 to 100 % of the frames, as in sensor dropouts."""
    thermal = _thermal(frame)
    if rng.random() >= severity / len(SEVERITIES):
        return frame
    return replace(frame, thermal=np.full_like(thermal, round(float(thermal.mean()))))


def rgb_dark(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Reduce the light to between a half and a fiftieth, at the same exposure."""
    rgb = _rgb(frame)
    return replace(frame, rgb=_counts(rgb * DARK[severity - 1] ** (1 / GAMMA), rgb.dtype))


def rgb_glare(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Add a headlight that shines into the camera: a round light and a veil over the whole image.

    The light falls off from its centre as a Gaussian whose standard deviation is a sixth of the
    image's height; the veil has a tenth of its brightness.
    """
    rgb = _rgb(frame)
    height, width = rgb.shape[:2]
    rows = (np.arange(height) - rng.uniform(0.3, 0.8) * height) / (height / 6)
    columns = (np.arange(width) - rng.uniform(0.1, 0.9) * width) / (height / 6)
    light = 0.9 * np.outer(np.exp(-(rows**2) / 2), np.exp(-(columns**2) / 2)) + 0.1
    return replace(frame, rgb=_counts(rgb + 255 * GLARE[severity - 1] * light[..., None], np.uint8))


def rgb_noise(
    frame: Frame, severity: int, rng: np.random.Generator, earlier: Callable[[int], Frame]
) -> Frame:
    """Add Gaussian noise of 3 to 30 % of white to RGB, one value per pixel and channel."""
    rgb = _rgb(frame)
    noise = 255 * RGB_NOISE[severity - 1] * rng.standard_normal(rgb.shape)
    return replace(frame, rgb=_counts(rgb + noise, rgb.dtype))


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        thermal_shift,
        thermal_noise,
        thermal_freeze,
        thermal_blackout,
        rgb_dark,
        rgb_glare,
        rgb_noise,
    )
}


def _check(modality: str, corruption: str | None, severity: int | None) -> None:
    if modality not in SELECTIONS:
        raise SartmError(f'modality {modality!r}; expected {", ".join(SELECTIONS)}')
    if corruption is None:
        if severity is not None:
            raise SartmError(f'severity {severity} is given without a corruption; name one')
        return
    if corruption not in CORRUPTIONS:
        raise SartmError(f'corruption {corruption!r}; expected one of {", ".join(CORRUPTIONS)}')
    if severity not in SEVERITIES:
        given = 'no severity' if severity is None else f'severity {severity}'
        raise SartmError(f'{given} is given for the corruption {corruption}; expected 1 to 5')
    if modality not in ('both', corruption.partition('_')[0]):
        raise SartmError(
            f'corruption {corruption} changes an image that modality {modality!r} leaves out; '
            'choose another corruption or modality'
        )


def _rgb(frame: Frame) -> np.ndarray:
    if frame.rgb is None:
        raise SartmError(f'frame {frame.name} has no RGB image that could be corrupted')
    return frame.rgb


def _thermal(frame: Frame) -> np.ndarray:
    if frame.thermal is None:
        raise SartmError(f'frame {frame.name} has no thermal image that could be corrupted')
    return frame.thermal


def _counts(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Round the values and clip them to the range of the type."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
