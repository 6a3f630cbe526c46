"""What a predictor takes and returns. Imports neither torch nor SAM2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES

SQUARE = 1.1
"""Ratio of the sides up to which an image counts as neither upright nor lying on its side."""

Images = Mapping[str, np.ndarray | None] | np.ndarray | None
"""The images of a frame by modality; or its RGB image alone, or None."""


@dataclass(frozen=True)
class Prediction:
    """The segmentation of one frame; H x W is the size of its first image, RGB where it is given.

    Attributes:
        labels: uint8 `[H, W]` of class ids; 255 where the network's result is not a number.
        confidence: uint8 `[H, W]`, the predicted class's probability times 255, 0 where the label
            is 255. None if it was not requested.
        overlay: uint8 RGB `[H, W, 3]`, the image with class colours blended over it. None if it
            was not requested.
        stages_s: seconds by stage: preprocess (transfer to the device included), network,
            postprocess (transfer to the host included). With a CUDA graph, preprocess is the host's
            copy into the graph's buffers alone, and network is all that the device does.
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None
    overlay: np.ndarray | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


def check_orientation(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise SartmError if one image is upright and another lies on its side.

    One is resized to the other's size, which would stretch it beyond recognition.

    Args:
        sizes: height and width by modality.
    """
    upright = [name for name, (height, width) in sizes.items() if height > SQUARE * width]
    lying = [name for name, (height, width) in sizes.items() if width > SQUARE * height]
    if upright and lying:
        texts = [f'{name} is {sizes[name][1]}x{sizes[name][0]}' for name in (*upright, *lying)]
        raise SartmError(
            f'{" and ".join(texts)}: one is upright and the other is not; expected images of the '
            'same field of view. Rotate one in its driver, or set a homography that turns it '
            '(sartm align)'
        )


def check_images(
    images: Images, thermal: np.ndarray | None, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the images that are given, in the order of a network's modalities, checked.

    Args:
        images: by modality, None for a missing one; or the RGB image, or None.
        thermal: the thermal image, or None.
        modalities: of the network, in its order.

    Raises:
        SartmError: none is given, the network lacks the modality of one, or one has another shape
            or type than its modality has.
    """
    named = images if isinstance(images, Mapping) else {'rgb': images}
    if thermal is not None:
        named = {**named, 'thermal': thermal}
    given = {name: image for name, image in named.items() if image is not None}
    takes = f'the network takes {" and ".join(modalities)}'
    unknown = [name for name in given if name not in modalities]
    if unknown:
        raise SartmError(f'{" and ".join(unknown)} image given, but {takes}; leave it out')
    if not given:
        raise SartmError(f'no image is given; {takes}, of which one is enough')
    for name, image in given.items():
        MODALITIES[name].check(image)
    return {name: given[name] for name in modalities if name in given}
