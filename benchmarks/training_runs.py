"""Trainings of a comparison: many runs in one folder, each continued where it was stopped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sartm_model.data.base import FrameDataset
from sartm_model.data.sampling import balanced_weights
from sartm_model.errors import SartmError
from sartm_model.training.callbacks import STATE_FILE
from sartm_model.training.run import train
from sartm_model.utils.files import write_file


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings that all runs have in common into a new folder.

    Raises:
        SartmError: the folder has runs with other settings.
    """
    settings = json.loads(json.dumps(settings, default=str))
    path = out / 'settings.json'
    if path.exists():
        earlier = json.loads(path.read_text())
        if changed := [name for name in settings if settings[name] != earlier.get(name)]:
            raise SartmError(
                f'{out} has runs with another {", ".join(changed)}; choose another folder'
            )
    write_file(path, json.dumps(settings, indent=2) + '\n')


def train_whole(config: dict[str, Any], folder: Path) -> Path:
    """Train, or continue a training that was stopped; return the last weights."""
    path = folder / 'train.yaml'
    write_file(path, yaml.safe_dump(config, sort_keys=False))
    return train(path, folder, resume=(folder / STATE_FILE).exists())


def class_weights(datasets: Sequence[FrameDataset]) -> list[float]:
    """Return the weights of `balanced_weights` with the exponent 1/3 for the training frames."""
    counts = np.zeros(len(datasets[0].label_space), np.int64)
    for frame in itertools.chain.from_iterable(datasets):
        assert frame.labels is not None
        counts += np.bincount(frame.labels.ravel(), minlength=256)[: len(counts)]
    return balanced_weights(counts, 1 / 3)


def mean_and_range(values: Sequence[float]) -> str:
    """Return the mean as text, and of several values the lowest and the highest."""
    mean = f'{sum(values) / len(values):.1f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.1f} to {max(values):.1f})'
