"""Light fields: views of a scene from a grid of places, of which some are selected.

The view in row r and column c of a 9x9 grid is a file `r_c.png`, or `NAME_r_c.png`. The central
one, `5_5`, is the RGB image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities.base import Corruption, Modality
from sartm_model.modalities.coded import CodedImage
from sartm_model.modalities.faults import blackout, freeze, shift
from sartm_model.modalities.rgb import Rgb
from sartm_model.modalities.rgb_faults import noise
from sartm_model.utils.image_io import read_rgb

VIEW = '1_5'
"""The view of `LightField`: the topmost of the central column. Beside the centre it has vertical
parallax alone, which a crop that is mirrored left to right keeps; horizontal parallax would change
its sign, and with it what it says about the distance."""

ROW = tuple(f'5_{column}' for column in (1, 2, 3, 4, 6, 7, 8, 9))
"""The views of `LightFieldRow`, the selection LF8 of CMNeXt: the central row without its centre."""

CORRUPTIONS: dict[str, Corruption] = {
    'noise': noise,
    'shift': shift,
    'freeze': freeze,
    'blackout': blackout,
}


class LightField(CodedImage):
    """One view of the light field beside the central one, uint8 `[H, W, 3]`."""

    name = 'light_field'
    title = 'light field'
    folder_names = r'light_?field|views?'
    corruptions: ClassVar = CORRUPTIONS
    advice = 'expected a view of a light field'


class LightFieldRow(Modality):
    """The eight views of `ROW` as one image, uint8 `[H, W, 24]`: RGB of each view."""

    name = 'light_field_row'
    title = 'light field (8 views)'
    channels = 3 * len(ROW)
    mean = Rgb.mean * len(ROW)
    std = Rgb.std * len(ROW)
    folder_names = r'light_?field_row'
    corruptions: ClassVar = CORRUPTIONS

    def read(self, path: Path) -> np.ndarray:
        """Read the views of a light field by the path of any of them, such as `SCENE/5_1.png`."""
        match = re.fullmatch(r'(.*?)\d+_\d+', path.stem)
        if match is None:
            raise SartmError(
                f'{path} is no view of a light field; expected a name that ends in its row and '
                f'column, such as {ROW[0]}{path.suffix}'
            )
        files = [path.with_name(f'{match[1]}{view}{path.suffix}') for view in ROW]
        views = [read_rgb(file, self.title) for file in files]
        if wrong := [f for f, v in zip(files, views, strict=True) if v.shape != views[0].shape]:
            raise SartmError(f'{wrong[0]} differs in size from {files[0]}; expected equal views')
        return np.concatenate(views, axis=2)

    def mirror(self, image: Any, normalised: bool = False) -> Any:
        """Reverse the order of the views: the leftmost place is the rightmost in the mirror."""
        order = [3 * view + channel for view in reversed(range(len(ROW))) for channel in range(3)]
        return image[..., order]

    def backdrop(self, scaled: Any) -> Any:
        """Return the first view."""
        return scaled[..., :3]

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the first view."""
        return image[..., :3]
