"""Trainings of a comparison: many runs in one folder, each continued where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
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
    """Train, or continue a training that was stopped; return the last weights.

    Raises:
        SartmError: the training is stopped by a signal.
    """
    path = folder / 'train.yaml'
    write_file(path, yaml.safe_dump(config, sort_keys=False))
    last = train(path, folder, resume=(folder / STATE_FILE).exists())
    steps = checkpoints.load(last).card['steps']
    if steps < config['steps']:
        raise SartmError(f'stopped after {steps} steps of {folder}; the same command continues')
    return last
