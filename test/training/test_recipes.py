"""The recipes have the settings of the paper; the estimates count what torch keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sartm_model.config import DataConfig, TrainConfig, load_train_config
from sartm_model.labels import MFNET
from sartm_model.models.sam2_download import SAM2_FILES
from sartm_model.models.sartm import Sartm
from tools import estimate_training as estimate
from tools.estimate_training import TrainingCost, count_cost

FOLDER = Path(__file__).resolve().parents[2] / 'config' / 'train'
FRAMES = {'mfnet': 784, 'pst900': 597, 'fmb': 1220}  # of the official training splits
SIZES = {'mfnet': (480, 640), 'pst900': (720, 1280), 'fmb': (600, 800)}


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.yaml')), ids=lambda path: path.stem)
def test_every_configuration_loads(path):
    config = load_train_config(path)
    # A key of the file that is not read would leave the default in its place.
    given = yaml.safe_load(path.read_text())
    assert {key: getattr(config, key) for key in given if not isinstance(given[key], dict)} == {
        key: value for key, value in given.items() if not isinstance(value, dict)
    }


@pytest.mark.parametrize('name', FRAMES)
def test_recipes_of_the_paper(name):
    config = load_train_config(FOLDER / f'{name}.yaml')
    data, optim = config.data, config.optim
    assert config.label_space == name
    assert [source.dataset for source in data.train] == [name]
    assert [source.split for source in data.train] == ['train']
    assert data.val.split != 'test'
    assert config.steps == math.ceil(500 * FRAMES[name] / data.batch_size)
    assert data.batch_size == 8
    assert optim.warmup_fraction * 500 == pytest.approx(10)
    assert (optim.lr, optim.weight_decay, optim.power) == (1e-4, 0.01, 0.9)
    assert (data.scale_min, data.scale_max, data.colour_jitter) == (0.5, 2.0, 0.2)
    assert (data.crop_height, data.crop_width) == SIZES[name]
    assert Path(config.sam2_weights).name == SAM2_FILES['sam2.1', config.model.size].name
    weights = f'sam2_weights=weights/{SAM2_FILES["sam2.1", "large"].name}'
    other = load_train_config(FOLDER / f'{name}.yaml', ['model.size=large', weights])
    assert other.model.size == 'large'


def test_the_estimate_counts_what_torch_keeps():
    config = TrainConfig(data=DataConfig(crop_height=64, crop_width=96))
    cost = count_cost(config)
    model = Sartm(config.model, len(MFNET)).train()
    assert cost.weights == sum(p.numel() for p in model.parameters())
    assert cost.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor):
        # A tensor that is freed could leave its address to another.
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def loss():
        output = model({name: torch.zeros(1, 3, 64, 96) for name in config.model.modalities})
        return sum(logits.log_softmax(1).mean() for logits in output.logits.values())

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = loss()
    found = sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in kept.items()
        if address not in parameters
    )
    assert alive.requires_grad
    assert cost.kept_bytes == pytest.approx(found, rel=0.02)
    # Attention of plain operations is counted without the tool's table of fused kernels. A fused
    # kernel repeats its forward pass in the backward pass, so it counts a little more.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().backward()
    assert 1 <= cost.operations / counter.get_total_flops() < 1.1


def test_the_estimate_follows_its_formula(tmp_path, capsys, monkeypatch):
    cost = TrainingCost(
        weights=3_000_000, trained=1_000_000, kept_bytes=2 * 10**9, operations=10**11
    )
    monkeypatch.setattr(estimate, 'count_cost', lambda config: cost)
    path = tmp_path / 'train.yaml'
    path.write_text('data: {batch_size: 4}\nsteps: 100\n')
    assert estimate.main(['--config', str(path), '--tflops', '0.5', 'steps=9000']) == 0
    found = json.loads(capsys.readouterr().out)
    # 4 x 2 GB are kept, and 3 M weights twice and 1 M trained three times, 4 bytes each, 36 MB.
    assert found['memory_gb_fp32'] == 8.0
    # 9000 steps of 4 x 0.1 tera-operations at half a tera-operation a second are 7200 s.
    assert found['hours_at_tflops'] == [2.0, 0.5]
    assert found['trained'] == 1_000_000
