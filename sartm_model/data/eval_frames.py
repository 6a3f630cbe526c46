"""Whole frames, without augmentation, that a training run measures its network on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sartm_model.data.base import FrameDataset
from sartm_model.data.sources import labels_of


class EvalFrame(NamedTuple):
    """A labelled frame at its own size, without augmentation.

    Attributes:
        name: of the frame.
        images: modality -> raw image.
        labels: uint8 `[H, W]`.
        source: number of its data set among those that are measured.
    """

    name: str
    images: dict[str, Tensor]
    labels: Tensor
    source: int = 0


class EvalDataset(Dataset):
    """The frames of a data set as `EvalFrame`s.

    Args:
        dataset: each frame must have an image of each modality.
        modalities: of the network, in its order.
        source: number of the data set among those that are measured.

    Raises:
        SartmError: when a frame is indexed that cannot be read or has no labels.
    """

    def __init__(self, dataset: FrameDataset, modalities: Sequence[str], source: int = 0) -> None:
        self.dataset = dataset
        self.modalities = modalities
        self.source = source

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EvalFrame:
        frame = self.dataset[index]
        selected = frame.select(self.modalities)
        images = {name: _to_tensor(image) for name, image in selected.items()}
        labels = _to_tensor(labels_of(frame))
        return EvalFrame(frame.name, images, labels, self.source)


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))
