"""What a predictor takes and returns. Imports neither torch nor SAM2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sartm_model.errors import SartmError


@dataclass(frozen=True)
class Prediction:
    """The segmentation of one pair; H x W is the size of the RGB image.

    Attributes:
        labels: uint8 `[H, W]` of class ids; 255 where the network's result is not a number.
        confidence: uint8 `[H, W]`, the predicted class's probability times 255, 0 where the label
            is 255. None if it was not requested.
        overlay: uint8 RGB `[H, W, 3]`, the image with class colours blended over it. None if it
            was not requested.
        stages_s: seconds by stage: upload (preprocessing included), network, download
            (postprocessing included). With a CUDA graph, upload is the host's part alone and
            network all of the device's.
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None
    overlay: np.ndarray | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


def check_images(rgb: np.ndarray | None, thermal: np.ndarray | None) -> None:
    """Raise SartmError unless a predictor can take these images."""
    if rgb is None and thermal is None:
        raise SartmError('no image: give an RGB image, a thermal image or both')
    if rgb is not None and (rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3):
        raise SartmError(f'RGB image is {rgb.dtype} {rgb.shape}; expected uint8 (H, W, 3)')
    if thermal is not None and (thermal.dtype not in (np.uint8, np.uint16) or thermal.ndim != 2):
        raise SartmError(
            f'thermal image is {thermal.dtype} {thermal.shape}; expected uint8 or uint16 (h, w)'
        )
    for name, image in (('RGB', rgb), ('thermal', thermal)):
        if image is not None and image.size == 0:
            raise SartmError(f'{name} image is empty: {image.shape}')
