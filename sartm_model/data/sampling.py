"""Training samples drawn from a weighted mixture of data sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sartm_model.config import DataConfig
from sartm_model.data.augmentation import Sample, augment
from sartm_model.data.frame import Frame
from sartm_model.data.sources import labels_of, modalities_of, open_frames
from sartm_model.labels import IGNORE_ID, LabelSpace

GROUP_STREAM = 1
"""Tells the random numbers that choose the group of a batch from those of its samples."""

COUNTED_FRAMES = 200
"""So many frames of a data set are enough to know how frequent its classes are."""


class SourceGroup(NamedTuple):
    """The sources of training frames that have images of the same modalities.

    Attributes:
        sources: their numbers in `DataConfig.drawn`.
        probabilities: of each of them.
    """

    sources: list[int]
    probabilities: np.ndarray


class TrainingSamples(Dataset):
    """An endless sequence of augmented samples.

    All samples of a batch have images of the same modalities: the group of data sets that they are
    drawn from is drawn once for a batch of all processes, by the sum of the weights. The number of
    the batch and the seed decide on it.

    Sample number i depends on the seed, on i and, where there are several groups, on the number of
    samples in a batch of all processes. So neither the number of worker processes, nor the number
    of processes among which a batch is divided, nor a stop and resume changes what a run is trained
    on.

    Args:
        config: the data sets, their weights and the augmentation.
        label_space: of the run.
        modalities: of the network, in its order.
        seed: of every random choice.
        processes: number of processes of the run; each has its own part of a batch.

    Attributes:
        sources: that samples are drawn from.
        source_modalities: the modalities of each source that its samples have, in the network's
            order.
        embeddings: of the frames of each data set, modality -> `[N, D]`, see `Sample`; None, as it
            begins, for none.
    """

    def __init__(
        self,
        config: DataConfig,
        label_space: LabelSpace,
        modalities: Sequence[str],
        seed: int,
        processes: int = 1,
    ) -> None:
        self.config = config
        self.modalities = modalities
        self.seed = seed
        self.batch_size = config.batch_size * processes
        self.sources = config.drawn
        self.source_modalities = [modalities_of(source, modalities) for source in self.sources]
        self.datasets = [
            open_frames(source, config, label_space, names)
            for source, names in zip(self.sources, self.source_modalities, strict=True)
        ]
        self.views = [ClassView(label_space, dataset.label_space) for dataset in self.datasets]
        self.num_classes = len(label_space)
        weights = np.array([source.weight for source in self.sources], float)
        self.source_probabilities = weights / weights.sum()
        self.groups = []
        for names in dict.fromkeys(self.source_modalities):
            sources = [i for i, other in enumerate(self.source_modalities) if other == names]
            self.groups.append(SourceGroup(sources, weights[sources] / weights[sources].sum()))
        self.embeddings: list[dict[str, Tensor]] | None = None
        of_group = np.array([weights[group.sources].sum() for group in self.groups])
        self.group_probabilities = of_group / of_group.sum()

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        sources, probabilities = self._group(index)
        source = sources[rng.choice(len(sources), p=probabilities)]
        view = self.views[source]
        number, frame = self._draw(source, rng)
        donor = None
        if rng.random() < self.config.paste_objects:
            _, donor = self._draw(source, rng)
        sample = augment(
            frame,
            self.config,
            rng,
            donor,
            background_id=view.background_id,
            excluded=view.excluded,
        )
        if self.embeddings is None:
            return sample
        of_frame = {name: rows[number] for name, rows in self.embeddings[source].items()}
        return sample._replace(embeddings=of_frame)

    def class_weights(self, exponent: float) -> list[float]:
        """Return the weights of `balanced_weights` for the mean share of each class in a sample.

        The shares are those of at most `COUNTED_FRAMES` frames of each data set, at equal
        distances.
        """
        shares = np.zeros(self.num_classes)
        for probability, dataset, view in zip(
            self.source_probabilities, self.datasets, self.views, strict=True
        ):
            counts = np.zeros(self.num_classes)
            for number in np.linspace(0, len(dataset) - 1, min(len(dataset), COUNTED_FRAMES)):
                ids = view.to_run(labels_of(dataset[round(number)])).ravel()
                counts += np.bincount(ids, minlength=256)[: self.num_classes]
            shares += probability * counts / max(counts.sum(), 1)
        return balanced_weights(shares, exponent)

    def _group(self, index: int) -> SourceGroup:
        """Return the group of data sets that the batch of a sample is drawn from."""
        if len(self.groups) == 1:
            return self.groups[0]
        rng = np.random.default_rng([self.seed, index // self.batch_size, GROUP_STREAM])
        return self.groups[rng.choice(len(self.groups), p=self.group_probabilities)]

    def _draw(self, source: int, rng: np.random.Generator) -> tuple[int, Frame]:
        """Draw a frame of a data set.

        Returns its number in the data set, and it with the run's ids and the images that the source
        is used for.
        """
        dataset = self.datasets[source]
        number = int(rng.integers(len(dataset)))
        frame = dataset[number]
        labels = self.views[source].to_run(labels_of(frame))
        # A data set may read more images than it was opened for, as from RGBA files.
        images = frame.select(self.source_modalities[source])
        return number, replace(frame, images=images, labels=labels)


def balanced_weights(pixels: np.ndarray, exponent: float) -> list[float]:
    """Return (n / n_c)^exponent of each class c, which has n_c pixels or such a share of them.

    n is that of the most frequent class. A class without pixels has the largest weight of the
    others: it may be rare, and its pixels not among those that were counted.
    """
    known = pixels > 0
    if not known.any():
        return [1.0] * len(pixels)
    weights = (pixels.max() / np.where(known, pixels, pixels[known].min())) ** exponent
    return [float(weight) for weight in weights]


class ClassView:
    """The classes of a data set among those of a run.

    Args:
        run: the label space of the run, K classes.
        own: that of the data set; the same, or a view of it.

    Attributes:
        background_id: id in the run of the data set's background; None if it has none.
        excluded: bool `[K]`, true for each class that the data set does not label; None in a run
            whose label space unifies no others.
    """

    def __init__(self, run: LabelSpace, own: LabelSpace) -> None:
        ids = run.ids_of(own)
        assert ids is not None  # `open_source` has checked it
        self.background_id = None if own.background_id is None else ids[own.background_id]
        self._table: np.ndarray | None = None
        self.excluded: np.ndarray | None = None
        if run.views:
            self._table = np.full(256, IGNORE_ID, np.uint8)
            self._table[: len(ids)] = ids
            self.excluded = ~np.isin(np.arange(len(run)), ids)

    def to_run(self, labels: np.ndarray) -> np.ndarray:
        """Return labels of the data set as ids of the run; 255 stays."""
        return labels if self._table is None else self._table[labels]


class ResumableBatchSampler(Sampler[list[int]]):
    """The sample numbers of each batch of one process of a run, without end.

    Batch m of process r of W, each of B samples, consists of the samples (m W + r) B to
    (m W + r + 1) B - 1. Together the processes use every sample once.

    Args:
        first: number m of the first batch; a resumed run skips those it was trained on.
        batch_size: B, samples in a batch of one process.
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
