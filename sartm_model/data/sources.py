"""Opens the data sets that a training run names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sartm_model.config import DataConfig, SourceConfig, TrainConfig
from sartm_model.data.base import FrameDataset
from sartm_model.data.cached import CachedFrames
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.data.unified_labels import open_run_label_space
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.modalities import MODALITIES, check_registered
from sartm_model.utils.text import compare_classes, format_names


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

    Sources of weight 0 do not count.

    Raises:
        SartmError: there is no such label space, or that source cannot be opened.
    """
    if config.label_space:
        return open_run_label_space(config.label_space)
    return _open(config.data.drawn[0]).label_space


def open_source(
    source: SourceConfig, label_space: LabelSpace, modalities: Sequence[str]
) -> FrameDataset:
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
            f'the run has label_space {label_space.name}{unifies}, but {name} has the classes of '
            f'{dataset.label_space.name}: {compare_classes(label_space, dataset.label_space)}'
        )
    if len(dataset) == 0:
        raise SartmError(f'{name} holds no frame')
    if source.frames:
        dataset = FirstFrames(dataset, source.frames, source.frames_seed)
    first = dataset[0]
    missing = [MODALITIES[m].title for m in modalities if m not in first.images]
    if missing:
        titles = ' and '.join(MODALITIES[modality].title for modality in modalities)
        there = [modality for modality in modalities if modality in first.images]
        # `data.modality` is of the whole run, and names one.
        setting = 'data.modality=' if len(there) == 1 else 'the modalities of the source to '
        advice = f'; set {setting}{", ".join(there)} to train without them' if there else ''
        raise SartmError(
            f'{name} has no {" and ".join(missing)} images; training needs {titles} of each frame'
            f'{advice}'
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
) -> FrameDataset:
    """Open a data set of a run with `open_source`, and read all its frames if `config.cache`."""
    dataset = open_source(source, label_space, modalities)
    return CachedFrames(dataset, config.workers, _title(source)) if config.cache else dataset


def labels_of(frame: Frame) -> np.ndarray:
    """Return the labels of a frame. Raises SartmError if it has none, unlike others of its set."""
    if frame.labels is None:
        raise SartmError(
            f'frame {frame.name} has no labels, so it can be neither learned nor measured; add '
            'them, or choose a split in which every frame has labels'
        )
    return frame.labels


def _title(source: SourceConfig) -> str:
    return ' '.join(filter(None, (source.dataset, source.root, source.split)))


def _open(source: SourceConfig) -> FrameDataset:
    root = Path(source.root) if source.root else None
    return open_dataset(source.dataset, root, source.split)


def _has_label(labels: np.ndarray | None) -> bool:
    return labels is not None and bool((labels != IGNORE_ID).any())


class FirstFrames(FrameDataset):
    """The first frames of another data set.

    Args:
        dataset: gives the frames.
        count: at most this number of them.
        seed: of a random order of the frames; None for that of the data set.
    """

    def __init__(self, dataset: FrameDataset, count: int, seed: int | None = None) -> None:
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
