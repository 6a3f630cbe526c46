"""Training samples drawn from a weighted mixture of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from sartm_model.config import DataConfig, SourceConfig
from sartm_model.datasets import open_dataset
from sartm_model.datasets.base import PairDataset
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.training.augment import Sample, augment


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


class TrainingSamples(IterableDataset):
    """An endless, seeded stream of augmented samples; each worker draws its own part.

    Args:
        config: sources, their weights and the augmentation.
        label_space: of the run.
        seed: of the stream; a worker's number is added to it.
    """

    def __init__(self, config: DataConfig, label_space: LabelSpace, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.datasets = [open_source(source, label_space) for source in config.train]
        weights = np.array([source.weight for source in config.train], float)
        self.probabilities = weights / weights.sum()

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            dataset = self.datasets[rng.choice(len(self.datasets), p=self.probabilities)]
            frame = dataset[int(rng.integers(len(dataset)))]
            donor = None
            if rng.random() < self.config.paste_objects:
                donor = dataset[int(rng.integers(len(dataset)))]
            yield augment(frame, self.config, rng, donor)
