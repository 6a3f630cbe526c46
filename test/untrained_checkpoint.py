"""A checkpoint of a nano network with random weights, for tests of what is around the network."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from sartm_model.config import ModelConfig
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models.checkpoint import save
from sartm_model.models.sartm import Sartm


def save_untrained(
    path: Path,
    label_space: LabelSpace = MFNET,
    seed: int = 0,
    modalities: tuple[str, ...] = ('rgb', 'thermal'),
) -> Path:
    """Write the checkpoint, which depends on the seed alone, and return its path."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter('ignore')
        torch.manual_seed(seed)
        model = Sartm(ModelConfig(modalities=modalities), len(label_space))
        save(path, model, label_space, {'note': 'not trained'})
    return path
