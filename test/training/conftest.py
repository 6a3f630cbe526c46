"""A data set and a configuration with which a training run takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mfnet_frames import write_frames

CLASSES = (0, 1, 2, 4)  # background, car, person, curve
EMBEDDED = ('car', 'person', 'curve')


@pytest.fixture(scope='session')
def small_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four frames of 64x96, each with four classes in blocks of 16x16."""
    rng = np.random.default_rng(1)
    labels = {
        name: np.kron(rng.choice(CLASSES, (4, 6)), np.ones((16, 16), np.uint8)).astype(np.uint8)
        for name in ('1D', '2D', '3N', '4N')
    }
    return write_frames(tmp_path_factory.mktemp('data') / 'mfnet', labels)


@pytest.fixture
def write_config(tmp_path: Path, small_frames: Path) -> Callable[..., Path]:
    """A function that writes a configuration and returns its path; arguments replace settings."""
    embeddings = np.random.default_rng(0).normal(size=(len(EMBEDDED), 8))
    np.savez(tmp_path / 'text.npz', names=np.array(EMBEDDED), embeddings=embeddings)

    def write(**values: Any) -> Path:
        source = {'dataset': 'mfnet', 'root': str(small_frames)}
        settings = {
            'steps': 4,
            'val_every': 2,
            'device': 'cpu',
            'text': {'embeddings': str(tmp_path / 'text.npz')},
            'data': {
                'train': [source],
                'val': {**source, 'split': 'val', 'frames': 2},
                'crop_height': 32,
                'crop_width': 64,
                'batch_size': 2,
                'workers': 0,
            },
        }
        path = tmp_path / 'train.yaml'
        path.write_text(yaml.safe_dump({**settings, **values}))
        return path

    return write
