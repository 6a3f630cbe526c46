"""The settings of model and training: one tree of frozen dataclasses, with `TrainConfig` on top.

`load_train_config` reads the tree from a YAML file and `key=value` overrides.
"""

from __future__ import annotations

from sartm_model.config.checks import check_choice
from sartm_model.config.data import DataConfig, SourceConfig
from sartm_model.config.loss import PRESETS, LossConfig, TextConfig
from sartm_model.config.model import (
    SAM2_SIZES,
    SIZES,
    ClipTowerConfig,
    ModelConfig,
    model_config_from_dict,
)
from sartm_model.config.train import (
    PRETRAINED,
    STARTS,
    MaClipConfig,
    OptimConfig,
    TrainConfig,
    load_train_config,
    to_dict,
    with_absolute_paths,
)

__all__ = [
    'PRESETS',
    'PRETRAINED',
    'SAM2_SIZES',
    'SIZES',
    'STARTS',
    'ClipTowerConfig',
    'DataConfig',
    'LossConfig',
    'MaClipConfig',
    'ModelConfig',
    'OptimConfig',
    'SourceConfig',
    'TextConfig',
    'TrainConfig',
    'check_choice',
    'load_train_config',
    'model_config_from_dict',
    'to_dict',
    'with_absolute_paths',
]
