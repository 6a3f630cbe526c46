"""The step of a run: learning rates, weight decay, clipping, kernel, memory format, chance."""

from __future__ import annotations

import copy
import csv
import warnings

import pytest
import torch
from torch.optim import AdamW
from torch.utils.data import default_collate

from sartm_model.config import load_train_config
from sartm_model.data.sources import label_space_of_run
from sartm_model.models.sartm import Sartm
from sartm_model.training.data_module import TrainingData
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train


@pytest.fixture
def module(write_config):
    """A function that returns the module of a run with the given settings."""

    def make(*overrides: str) -> SegmentationTraining:
        config = load_train_config(write_config(loss={'language': 0}), overrides)
        space = label_space_of_run(config)
        return SegmentationTraining(Sartm(config.model, len(space)), config, space)

    return make


def test_each_parameter_has_the_rate_of_its_part_and_its_weight_decay(module):
    run = module('optim.lr=1e-3', 'optim.encoder_lr_factor=0.3', 'optim.weight_decay=0.02')
    (optimizer,), (schedule,) = run.configure_optimizers()
    found = {
        parameter: (group['initial_lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    parts = set()
    for name, parameter in run.model.named_parameters():
        if not parameter.requires_grad:
            assert parameter not in found
            continue
        lr, decay = found.pop(parameter)
        in_encoder = name.split('.')[0] == 'encoder'
        assert lr == pytest.approx(3e-4 if in_encoder else 1e-3)
        assert decay == (0.02 if parameter.dim() > 1 else 0)
        parts.add((in_encoder, parameter.dim() > 1))
    assert not found
    assert len(parts) == 4
    # The schedule keeps the ratio.
    optimizer.step()
    schedule['scheduler'].step()
    rates = {group['initial_lr']: group['lr'] for group in optimizer.param_groups}
    assert rates[3e-4] == pytest.approx(0.3 * rates[1e-3])


def test_the_logged_rate_is_that_of_the_heads(write_config, tmp_path):
    overrides = ['optim.encoder_lr_factor=0.1', 'optim.lr=1e-3', 'val_every=1']
    train(write_config(), tmp_path / 'run', overrides)
    with (tmp_path / 'run' / 'metrics.csv').open() as file:
        rates = [float(row['lr']) for row in csv.DictReader(file) if row['lr']]
    # A warm-up of one step from a tenth, then 4 steps with the power 0.9.
    expected = [1e-4, *(1e-3 * (1 - step / 4) ** 0.9 for step in (1, 2, 3))]
    assert rates == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('fused', [False, True])
def test_gradients_are_clipped_also_with_a_fused_optimizer(
    write_config, tmp_path, monkeypatch, fused
):
    """As on a GPU, where it is fused: in bf16-mixed Lightning itself would refuse to clip."""
    monkeypatch.setattr(
        torch.optim, 'AdamW', lambda *args, **kwargs: AdamW(*args, **{**kwargs, 'fused': fused})
    )
    norms = []

    def clip(module, *args, **kwargs):
        unclipped = gradient_norm(module)
        original(module, *args, **kwargs)
        norms.append((unclipped, gradient_norm(module)))

    original = SegmentationTraining.configure_gradient_clipping
    monkeypatch.setattr(SegmentationTraining, 'configure_gradient_clipping', clip)
    overrides = ['steps=2', 'precision=bf16-mixed', 'optim.clip_norm=1e-3']
    train(write_config(), tmp_path / 'run', overrides)
    assert len(norms) == 2
    for unclipped, clipped in norms:
        assert unclipped > 0.01
        assert clipped == pytest.approx(1e-3, rel=1e-2)


def gradient_norm(module: SegmentationTraining) -> float:
    gradients = [p.grad.flatten() for p in module.model.parameters() if p.grad is not None]
    return float(torch.cat(gradients).norm())


def test_a_step_is_computed_channels_last_and_gives_the_same_logits(module):
    run = module('data.drop_modality=0')
    plain = copy.deepcopy(run.model).to(memory_format=torch.contiguous_format)
    samples = TrainingData(run.config, run.label_space).train_samples
    batch = default_collate([samples[0], samples[1]])
    seen = []
    run.model.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Lightning: values are logged without a trainer
        run.training_step(batch, 0)
    images, found = seen[0]
    weights = [layer.weight for layer in run.model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert weights
    for tensor in (*images.values(), *weights):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    expected = plain(batch.inputs())
    assert found.logits.keys() == expected.logits.keys()
    for head, logits in expected.logits.items():
        torch.testing.assert_close(found.logits[head], logits, atol=1e-4, rtol=1e-4)


def test_each_batch_of_a_step_draws_its_own_numbers(write_config, tmp_path, monkeypatch):
    drawn = []

    def forward(self, *args, **options):
        drawn.append(torch.rand(1).item())
        return original(self, *args, **options)

    original = SegmentationTraining.forward
    monkeypatch.setattr(SegmentationTraining, 'forward', forward)
    overrides = ['optim.accumulate=2', 'steps=2', 'loss.language=0']
    train(write_config(), tmp_path / 'run', overrides)
    assert len(drawn) == len(set(drawn)) == 4
