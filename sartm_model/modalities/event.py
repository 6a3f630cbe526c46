"""Images of an event camera: accumulated frames, and voxel grids of 3 and of 5 time bins.

`Modality.channels` belongs to the modality. So each form with another number of channels has a name
of its own, and a network that is trained on one of them refuses the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities.base import Corruption, EarlierImage, Modality
from sartm_model.modalities.coded import CodedImage
from sartm_model.modalities.faults import blackout, freeze, shift
from sartm_model.utils.array_io import read_channels

NOISE = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Share of the pixels with a spurious event at each severity of an evaluation."""

BRIGHTEST = 3.0
"""Events in a bin that are shown at full brightness."""


def noise(
    events: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add spurious events: 0.5 to 10 % of the pixels get an extreme value of the image.

    Each channel of such a pixel gets the lowest or the highest value that the image has.
    """
    hit = rng.random(events.shape[:2]) < NOISE[severity - 1]
    extremes = np.array([events.min(), events.max()])
    return np.where(hit[..., None], extremes[rng.integers(0, 2, events.shape)], events)


CORRUPTIONS: dict[str, Corruption] = {
    'noise': noise,
    'shift': shift,
    'freeze': freeze,
    'blackout': blackout,
}


class Event(CodedImage):
    """Events accumulated over a time in an 8-bit image of three channels, as in DELIVER."""

    name = 'event'
    title = 'event'
    may_be_uniform = True
    folder_names = 'event|dvs'
    corruptions: ClassVar = CORRUPTIONS
    advice = 'is it a voxel grid, modality event_voxel3 or event_voxel5?'


class EventVoxels(Modality):
    """Events by pixel and time bin, positive minus negative ones, float32 `[H, W, bins]`."""

    dtypes = ('float32',)
    suffixes = ('.npy',)
    may_be_uniform = True
    corruptions: ClassVar = CORRUPTIONS

    def read(self, path: Path) -> np.ndarray:
        """Read a NumPy file (.npy) of numbers `[H, W, bins]` or `[bins, H, W]`."""
        return read_channels(path, self.channels, self.title)

    def from_values(self, values: np.ndarray) -> np.ndarray:
        """Return the values. Raises SartmError if one is not a finite number."""
        if not np.isfinite(values).all():
            raise SartmError(f'{self.title} image has values that are no finite numbers')
        return values

    def backdrop(self, scaled: Any) -> Any:
        """Return the grey image of the sum over the bins: grey without events."""
        return (127.5 + scaled.sum(-1) * (127.5 / BRIGHTEST)).clip(0, 255)[..., None]

    def show(self, image: np.ndarray) -> np.ndarray:
        """Show the sum over the bins: red for more light, blue for less, black for no event."""
        total = image.sum(axis=-1) * (255 / BRIGHTEST)
        red_and_blue = np.dstack([total, np.zeros_like(total), -total])
        return red_and_blue.clip(0, 255).astype(np.uint8)


class EventVoxels3(EventVoxels):
    """A voxel grid of 3 bins."""

    name = 'event_voxel3'
    title = 'event (3 bins)'
    channels = 3
    mean = (0.0,) * 3
    std = (1.0,) * 3
    folder_names = r'voxels?_?3'


class EventVoxels5(EventVoxels):
    """A voxel grid of 5 bins."""

    name = 'event_voxel5'
    title = 'event (5 bins)'
    channels = 5
    mean = (0.0,) * 5
    std = (1.0,) * 5
    folder_names = r'voxels?_?5'
