"""Linear polarisation: its angle (AoLP) and its degree (DoLP).

With the intensities I_a behind a polariser at a = 0, 45, 90 and 135 degrees

    S0 = (I_0 + I_45 + I_90 + I_135) / 4,    S1 = I_0 - I_90,    S2 = I_45 - I_135,
    AoLP = atan2(S2, S1) / (2 pi) + 0.5,     DoLP = min(1, sqrt(S1^2 + S2^2) / S0),

as the files of ZJU-RGB-P are made. Their S0 is half of the Stokes parameter, so their DoLP is twice
the physical degree and ends at a degree of 0.5.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities.base import Modality
from sartm_model.modalities.faults import blackout, freeze, shift
from sartm_model.modalities.rgb_faults import noise
from sartm_model.utils.image_io import SUFFIXES, read_rgb

ANGLES = ('0', '45', '90', '135')
"""Names of the folders with the image behind each polariser."""


def encode(cosine: np.ndarray, sine: np.ndarray, dolp: np.ndarray) -> np.ndarray:
    """Return the raw image `[H, W, 3]`, uint8, of cos 2a and sin 2a in [-1, 1] and DoLP in [0, 1].

    a is the angle, of which a and a + 180 degrees are the same.
    """
    channels = np.dstack([127.5 * (1 + cosine), 127.5 * (1 + sine), 255 * dolp])
    return np.rint(channels).clip(0, 255).astype(np.uint8)


def from_four_angles(images: list[np.ndarray]) -> np.ndarray:
    """Return the raw image of the intensities behind the polarisers at 0, 45, 90, 135 degrees.

    Args:
        images: `[H, W]` or `[H, W, C]`, of whose channels the mean is taken.
    """
    # Differences of bytes would wrap around.
    at = [image.astype(np.float32) for image in images]
    at_0, at_45, at_90, at_135 = (x if x.ndim == 2 else x.mean(axis=2) for x in at)
    s0 = (at_0 + at_45 + at_90 + at_135) / 4
    s1, s2 = at_0 - at_90, at_45 - at_135
    length = np.hypot(s1, s2)
    safe = np.maximum(length, 1e-6)
    dolp = np.minimum(1, length / np.maximum(s0, 1e-6))
    return encode(s1 / safe, s2 / safe, dolp)


def from_aolp_dolp(aolp: np.ndarray, dolp: np.ndarray | None) -> np.ndarray:
    """Return the raw image of AoLP and DoLP as bytes, 0 to 255 for 0 to 1.

    Args:
        aolp: uint8 `[H, W, C]`. The mean over the channels is that of the unit vectors.
        dolp: uint8 `[H, W, C]`; None where it is not known, for 0.
    """
    twice = 2 * np.pi * (aolp.astype(np.float32) / 255 - 0.5)
    degree = np.zeros(aolp.shape[:2]) if dolp is None else dolp.mean(axis=2) / 255
    return encode(np.cos(twice).mean(axis=2), np.sin(twice).mean(axis=2), degree)


class Polarization(Modality):
    """Bytes `[H, W, 3]`: cos and sin of twice the angle, and the degree; see `encode`.

    The angle itself jumps from 1 to 0 where it passes 180 degrees. Between two such pixels every
    interpolation, such as that of a resized crop, would give an angle that is nowhere there.
    """

    name = 'polarization'
    title = 'polarization'
    channels = 3
    mean = (127.5, 127.5, 0.0)  # unpolarised light, after the normalisation all 0
    std = (90.0, 90.0, 64.0)  # that of the cosine of any angle; a quarter of the range; `ours`
    folder_names = r'polari[sz]|aolp'
    corruptions: ClassVar = {
        'noise': noise, 'shift': shift, 'freeze': freeze, 'blackout': blackout
    }  # fmt: skip

    def read(self, path: Path) -> np.ndarray:
        """Read the image from four files, or from one of AoLP and one of DoLP.

        Args:
            path: `0/NAME`, `45/NAME`, `90/NAME` or `135/NAME`; all four are read. Or a file
                with 'aolp' in its name or in that of its folder; the one with 'dolp' in its place,
                of any suffix, is read too. If there is none, the degree is 0, unless a folder of
                DoLP lacks it, which is an error.
        """
        if path.parent.name in ANGLES:
            files = [path.parent.parent / angle / path.name for angle in ANGLES]
            images = [read_rgb(file, self.title) for file in files]
            if len({image.shape for image in images}) > 1:
                raise SartmError(f'{path} and its images at the other angles differ in size')
            return from_four_angles(images)
        partner = path.parent.parent / _dolp_name(path.parent.name) / _dolp_name(path.name)
        if partner == path:
            raise SartmError(
                f'{path} cannot be read as polarization; expected a file in one of the folders '
                '0, 45, 90 and 135, or one with aolp in its name or in that of its folder'
            )
        aolp = read_rgb(path, 'AoLP')
        of_any_suffix = [partner.with_suffix(end) for s in SUFFIXES for end in (s, s.upper())]
        found = next((file for file in (partner, *of_any_suffix) if file.exists()), None)
        if found is None:
            if partner.parent != path.parent and partner.parent.is_dir():
                raise SartmError(f'{path} has no DoLP: {partner} does not exist; add it')
            return from_aolp_dolp(aolp, None)
        dolp = read_rgb(found, 'DoLP')
        if dolp.shape != aolp.shape:
            raise SartmError(f'{path} and {found} differ in size')
        return from_aolp_dolp(aolp, dolp)

    def mirror(self, image: Any, normalised: bool = False) -> Any:
        """Negate the sine: behind a mirror an angle a is -a."""
        mirrored = image.copy() if isinstance(image, np.ndarray) else image.clone()
        mirrored[..., 1] = (0 if normalised else 255) - image[..., 1]
        return mirrored

    def backdrop(self, scaled: Any) -> Any:
        """Return the degree as a grey image."""
        return scaled[..., 2:]

    def show(self, image: np.ndarray) -> np.ndarray:
        """Show the angle as hue and the degree as brightness."""
        cosine, sine = (image[..., channel].astype(np.float32) - 127.5 for channel in (0, 1))
        hue = (np.arctan2(sine, cosine) / (2 * np.pi) % 1 * 180).astype(np.uint8) % 180
        saturated = np.full_like(hue, 255)
        return cv2.cvtColor(np.dstack([hue, saturated, image[..., 2]]), cv2.COLOR_HSV2RGB)


def _dolp_name(name: str) -> str:
    """Return a name with 'dolp' for 'aolp', in the same letters: AoLP becomes DoLP."""
    return re.sub('(?i)a(?=olp)', lambda match: 'D' if match[0] == 'A' else 'd', name)
