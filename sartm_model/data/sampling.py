"""Training samples drawn from a weighted mixture of data sets, and whole frames to measure on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sartm_model.config import DataConfig, SourceConfig
from sartm_model.data.augmentation import Sample, augment
from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Condition
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace


def open_source(source: SourceConfig, label_space: LabelSpace) -> PairDataset:
    """Open one source and hold it against the run's label space."""
    root = Path(source.root).expanduser() if source.root else None
    dataset = open_dataset(source.dataset, root, source.split)
    if dataset.label_space.classes != label_space.classes:
        raise SartmError(
            f'{source.dataset} has the classes of {dataset.label_space.name}, but the run is set '
            f'to label_space {label_space.name}'
        )
    if len(dataset) == 0:
        raise SartmError(f'{source.dataset} {source.root} {source.split} holds no frame')
    if source.frames:
        dataset.names = dataset.names[: source.frames]
    return dataset


class TrainingSamples(Dataset):
    """Augmented samples without end; number i is the same whichever process makes it, and when.

    So neither the number of workers nor a stop and resume changes what a run is trained on.

    Args:
        config: sources, their weights and the augmentation.
        label_space: of the run.
        seed: of all that is drawn.
    """

    def __init__(self, config: DataConfig, label_space: LabelSpace, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.datasets = [open_source(source, label_space) for source in config.train]
        weights = np.array([source.weight for source in config.train], float)
        self.probabilities = weights / weights.sum()

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        dataset = self.datasets[rng.choice(len(self.datasets), p=self.probabilities)]
        frame = dataset[int(rng.integers(len(dataset)))]
        donor = None
        if rng.random() < self.config.paste_objects:
            donor = dataset[int(rng.integers(len(dataset)))]
        return augment(frame, self.config, rng, donor)


class ResumableBatchSampler(Sampler[list[int]]):
    """Numbers of the samples of each batch of one process of a run, without end.

    Batch m of process r of W, each of B samples, is made of the samples (m W + r) B and following:
    together the processes see every sample once.

    Args:
        first: number m of the first batch: those already trained on are left out.
        batch_size: B, samples of a batch of one process.
        rank: r.
        processes: W.
    """

    def __init__(self, first: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        self.first = first
        self.batch_size = batch_size
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        for number in itertools.count(self.first):
            start = (number * self.processes + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


class EvalFrame(NamedTuple):
    """A labelled frame as it was read, for measuring.

    Attributes:
        name: of the frame.
        condition: day, night or None.
        rgb: uint8 `[H, W, 3]`.
        thermal: uint8 or uint16 `[h, w]`.
        labels: uint8 `[H, W]`.
    """

    name: str
    condition: Condition | None
    rgb: Tensor
    thermal: Tensor
    labels: Tensor


class EvalDataset(Dataset):
    """The frames of a data set that has both images and labels."""

    def __init__(self, dataset: PairDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EvalFrame:
        frame = self.dataset[index]
        images = (frame.rgb, frame.thermal, frame.labels)
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        return EvalFrame(frame.name, frame.condition, *tensors)
