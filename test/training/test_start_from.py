"""Runs that start from a checkpoint: whose settings apply, and the configuration for own data."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from sartm_model.config import ModelConfig, load_train_config
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.training.run import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def earlier(tmp_path):
    """A checkpoint whose settings are not the defaults."""
    config = ModelConfig(lora_rank=4, input_scale=0.5, prediction='auxiliary')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sartm(config, len(MFNET))
    path = tmp_path / 'earlier.safetensors'
    checkpoints.save(path, model, MFNET, {})
    return checkpoints.load(path)


def test_without_model_a_run_has_the_settings_of_the_checkpoint(tmp_path, write_config, earlier):
    config = write_config(start_from='earlier.safetensors')
    last = train(config, tmp_path / 'run', ['steps=1'])
    assert checkpoints.load(last).config == earlier.config
    assert load_train_config(tmp_path / 'run' / 'config.yaml').model == earlier.config
    train(config, tmp_path / 'run', ['steps=1'], resume=True)


def test_settings_that_no_weight_depends_on_may_be_changed(tmp_path, write_config, earlier):
    config = write_config(start_from='earlier.safetensors', model={'prediction': 'mean'})
    overrides = ['steps=1', 'model.input_scale=1', 'optim.lr=1e-9', 'ema_decay=0']
    found = checkpoints.load(train(config, tmp_path / 'run', overrides))
    assert found.config == ModelConfig(lora_rank=4, input_scale=1.0, prediction='mean')
    key = 'auxiliary_head.classifier.weight'
    torch.testing.assert_close(found.state[key], earlier.state[key], atol=1e-6, rtol=0)


def test_another_sensor_starts_from_the_weights_of_thermal(tmp_path, write_config, earlier, capsys):
    scenes = '{dataset: synthetic, frames: 2}'
    config = write_config(start_from='earlier.safetensors', model={'modalities': ['rgb', 'depth']})
    overrides = ['steps=1', 'optim.lr=1e-9', 'ema_decay=0']
    sources = [f'data.train=[{scenes}]', f'data.val={scenes}']
    found = checkpoints.load(train(config, tmp_path / 'run', [*overrides, *sources]))
    assert found.config.modalities == ('rgb', 'depth')
    assert 'depth starts from the weights of thermal' in capsys.readouterr().out
    of_thermal = [name for name in earlier.state if '.thermal.' in name]
    assert of_thermal
    for name in of_thermal:
        value = found.state[name.replace('.thermal.', '.depth.')]
        torch.testing.assert_close(value, earlier.state[name], atol=1e-6, rtol=0)
    assert not any('thermal' in name for name in found.state)


def test_a_network_of_another_form_is_refused(tmp_path, write_config, earlier):
    config = write_config(start_from='earlier.safetensors', model={'lora_rank': 8})
    with pytest.raises(SartmError, match=r'leave model out') as refused:
        train(config, tmp_path / 'run')
    assert 'lora_rank (4 before, 8 now)' in str(refused.value)
    assert 'modalities' not in str(refused.value)  # what is the same is not named


def test_the_configuration_for_own_data_trains_beside_a_declaration(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / 'yard'
    for part in ('rgb', 'thermal', 'masks'):
        (root / part).mkdir(parents=True)
    for number in range(3):
        mask = np.kron(rng.integers(0, 2, (3, 4)), np.ones((32, 32))).astype(np.uint8)
        for part in ('rgb', 'thermal', 'masks'):
            image = mask if part == 'masks' else 60 + 80 * mask
            assert cv2.imwrite(str(root / part / f'{number}.png'), image)
    declaration = {
        'label_space': ['ground', 'person'],
        'images': {'rgb': 'rgb/{stem}.png', 'thermal': 'thermal/{stem}.png'},
        'labels': 'masks/{stem}.png',
        'splits': {'train': ['0', '1'], 'val': ['2']},
    }
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    shutil.copy(ROOT / 'config' / 'train' / 'own_data.yaml', root / 'train.yaml')
    small = ['data.crop_height=64', 'data.crop_width=64', 'data.batch_size=2', 'data.workers=0']
    last = train(root / 'train.yaml', tmp_path / 'run', [*small, 'steps=1', 'device=cpu'])
    found, demo = checkpoints.load(last), checkpoints.load('demo')
    assert found.label_space.classes == ('ground', 'person')
    assert found.config == demo.config
