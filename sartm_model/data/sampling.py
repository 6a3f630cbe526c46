"""Training samples drawn from a weighted mixture of data sets, and whole frames for evaluation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sartm_model.config import DataConfig, SourceConfig, TrainConfig
from sartm_model.data.augmentation import Sample, augment
from sartm_model.data.base import PairDataset
from sartm_model.data.cached import CachedFrames
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.data.unified_labels import open_run_label_space
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.modalities import MODALITIES, check_registered
from sartm_model.utils.text import format_names

GROUP_STREAM = 1
"""Tells the random numbers that choose the group of a batch from those of its samples."""

COUNTED_FRAMES = 200
"""So many frames of a data set are enough to know how frequent its classes are."""


def modalities_of(source: SourceConfig, modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities of a network that a source has, in the network's order.

    Raises SartmError if it has none.
    """
    found = tuple(m for m in modalities if m in source.modalities or not source.modalities)
    if not found:
        raise SartmError(
            f'{_title(source)} has the modalities {", ".join(source.modalities)}; expected one or '
            f'more of {", ".join(modalities)}'
        )
    return found


def label_space_of_run(config: TrainConfig) -> LabelSpace:
    """Return the classes of a run: those it names, or else those of its first training source.

    Raises:
        SartmError: there is no such label space, or that source cannot be opened.
    """
    if config.label_space:
        return open_run_label_space(config.label_space)
    return _open(config.data.train[0]).label_space


def open_source(
    source: SourceConfig, label_space: LabelSpace, modalities: Sequence[str]
) -> PairDataset:
    """Open a data set of a run.

    Args:
        source: the data set.
        label_space: the classes that it must have, or that its own are a view of.
        modalities: the modalities that its frames must have; others are ignored.

    Raises:
        SartmError: the data set cannot be opened, its classes are neither those of `label_space`
            nor a view of them, it is empty, a modality is unknown or missing, it has no labels, or
            none of its frames has a labelled pixel.
    """
    check_registered(modalities)
    dataset = _open(source).with_modalities(modalities)
    name = _title(source)
    if label_space.ids_of(dataset.label_space) is None:
        unified = [view.space.name for view in label_space.views]
        unifies = f', which unifies {", ".join(unified)}' if unified else ''
        raise SartmError(
            f'{source.dataset} has the classes of {dataset.label_space.name}, but the run has '
            f'label_space {label_space.name}{unifies}'
        )
    if len(dataset) == 0:
        raise SartmError(f'{name} holds no frame')
    if source.frames:
        dataset = FirstFrames(dataset, source.frames, source.frames_seed)
    first = dataset[0]
    missing = [MODALITIES[m].title for m in modalities if m not in first.images]
    if missing:
        titles = ' and '.join(MODALITIES[modality].title for modality in modalities)
        raise SartmError(
            f'{name} has no {" and ".join(missing)} images; training needs {titles} of each frame'
        )
    if first.labels is None:
        raise SartmError(
            f'the frames of {name} have no labels, so nothing can be learned or measured; add '
            'them, or label the frames by sartm pseudo-label'
        )
    # `any` stops at the first labelled pixel, so of a sound data set one frame is read.
    if not any(_has_label(frame.labels) for frame in dataset):
        raise SartmError(
            f'no pixel of {name} is labelled: the labels of all {len(dataset)} frames '
            f'({format_names(dataset.names)}) are {IGNORE_ID}, which means "not labelled", so '
            f'nothing can be learned or measured; write class ids 0 to {len(label_space) - 1} '
            f'({format_names(label_space.classes)}) into the label images'
        )
    return dataset


def open_frames(
    source: SourceConfig, config: DataConfig, label_space: LabelSpace, modalities: Sequence[str]
) -> PairDataset:
    """Open a data set of a run with `open_source`, and read all its frames if `config.cache`."""
    dataset = open_source(source, label_space, modalities)
    return CachedFrames(dataset, config.workers, _title(source)) if config.cache else dataset


def _title(source: SourceConfig) -> str:
    return ' '.join(filter(None, (source.dataset, source.root, source.split)))


def _open(source: SourceConfig) -> PairDataset:
    root = Path(source.root) if source.root else None
    return open_dataset(source.dataset, root, source.split)


def _has_label(labels: np.ndarray | None) -> bool:
    return labels is not None and bool((labels != IGNORE_ID).any())


class FirstFrames(PairDataset):
    """The first frames of another data set.

    Args:
        dataset: gives the frames.
        count: at most this number of them.
        seed: of a random order of the frames; None for that of the data set.
    """

    def __init__(self, dataset: PairDataset, count: int, seed: int | None = None) -> None:
        order = list(range(len(dataset)))
        if seed is not None:
            # Of all that Python draws, `random()` alone is promised to stay the same.
            draw = random.Random(seed)
            order.sort(key=lambda _: draw.random())
        self._dataset, self._order = dataset, order[:count]
        self.label_space = dataset.label_space
        self.names = [dataset.names[index] for index in self._order]

    def __getitem__(self, index: int) -> Frame:
        return self._dataset[self._order[index]]


class SourceGroup(NamedTuple):
    """The sources of training frames that have images of the same modalities.

    Attributes:
        sources: their numbers in `DataConfig.train`.
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
        given = [modalities_of(source, modalities) for source in config.train]
        self.datasets = [
            open_frames(source, config, label_space, names)
            for source, names in zip(config.train, given, strict=True)
        ]
        self.views = [ClassView(label_space, dataset.label_space) for dataset in self.datasets]
        self.num_classes = len(label_space)
        weights = np.array([source.weight for source in config.train], float)
        self.source_probabilities = weights / weights.sum()
        self.groups = []
        for names in dict.fromkeys(given):
            sources = [number for number, other in enumerate(given) if other == names]
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
                labels = dataset[round(number)].labels
                assert labels is not None  # as in `_draw`
                ids = view.to_run(labels).ravel()
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

        Returns its number in the data set, and it with the network's images and the run's ids.
        """
        dataset = self.datasets[source]
        number = int(rng.integers(len(dataset)))
        frame = dataset[number]
        assert frame.labels is not None
        labels = self.views[source].to_run(frame.labels)
        return number, replace(frame, images=frame.select(self.modalities), labels=labels)


def balanced_weights(pixels: np.ndarray, exponent: float) -> list[float]:
    """Return (n / n_c)^exponent of each class c, which has n_c pixels or such a share of them.

    n is that of the most frequent class. A class without pixels has the weight 1.
    """
    return [float((pixels.max() / count) ** exponent) if count else 1.0 for count in pixels]


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


class EvalFrame(NamedTuple):
    """A labelled frame at its own size, without augmentation.

    Attributes:
        name: of the frame.
        condition: of the frame, or None.
        images: modality -> raw image.
        labels: uint8 `[H, W]`.
        source: number of its data set among those that are measured.
    """

    name: str
    condition: str | None
    images: dict[str, Tensor]
    labels: Tensor
    source: int = 0


class EvalDataset(Dataset):
    """The frames of a data set as `EvalFrame`s.

    Args:
        dataset: each frame must have labels, and an image of each modality.
        modalities: of the network, in its order.
        source: number of the data set among those that are measured.
    """

    def __init__(self, dataset: PairDataset, modalities: Sequence[str], source: int = 0) -> None:
        self.dataset = dataset
        self.modalities = modalities
        self.source = source

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EvalFrame:
        frame = self.dataset[index]
        assert frame.labels is not None
        selected = frame.select(self.modalities)
        images = {name: _to_tensor(image) for name, image in selected.items()}
        labels = _to_tensor(frame.labels)
        return EvalFrame(frame.name, frame.condition, images, labels, self.source)


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))
