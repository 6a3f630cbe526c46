"""`compile: true` of a training run, with a network small enough to be compiled in seconds."""

from __future__ import annotations

import csv
import os
import shutil
import signal

import pytest
import torch
from toy_model import ENTRY

from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import MODELS
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train


@pytest.fixture
def config(monkeypatch, tmp_path, write_config):
    """A run of four steps, each of which is logged; some thermal images are dropped."""
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'cache'))
    return write_config(model={'name': 'toy'}, steps=4, val_every=1, optim={'lr': 0.01})


def losses(folder):
    with (folder / 'metrics.csv').open() as file:
        return [float(row['loss']) for row in csv.DictReader(file) if row['loss']]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='there is no g++')
def test_a_compiled_run_equals_one_that_is_not_and_can_be_resumed(tmp_path, config, monkeypatch):
    plain = checkpoints.load(train(config, tmp_path / 'plain')).state
    override = ['compile=true']
    compiled = checkpoints.load(train(config, tmp_path / 'compiled', override)).state
    assert compiled.keys() == plain.keys()
    # Sums are in another order, which in float32 changes the seventh digit; over four steps of
    # AdamW, which divides by the size of the gradient, a few digits more.
    assert losses(tmp_path / 'compiled') == pytest.approx(losses(tmp_path / 'plain'), rel=1e-4)
    assert len(losses(tmp_path / 'plain')) == 4
    states = [
        torch.load(tmp_path / name / 'last.ckpt', weights_only=True)['state_dict'].keys()
        for name in ('plain', 'compiled')
    ]
    assert states[0] == states[1]
    original = SegmentationTraining.training_step

    def stop_at_1(self, batch, index):
        if self.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTraining, 'training_step', stop_at_1)
        with pytest.raises(SystemExit):
            train(config, tmp_path / 'parts', override)
    resumed = checkpoints.load(train(config, tmp_path / 'parts', override, resume=True)).state
    assert all(torch.equal(resumed[name], value) for name, value in compiled.items())


def test_a_network_that_cannot_be_compiled_ends_the_run_with_an_error(
    tmp_path, config, monkeypatch
):
    from torch._dynamo.exc import TorchDynamoException

    def compile_nothing(function, **_):
        def fails(*_, **__):
            raise TorchDynamoException('no compiler here\nand more lines')

        return fails

    monkeypatch.setattr(torch, 'compile', compile_nothing)
    with pytest.raises(
        SartmError, match=r'compiled: TorchDynamoException: no compiler here; leave'
    ):
        train(config, tmp_path / 'run', ['compile=true'])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='there is no g++')
def test_a_backward_pass_that_cannot_be_compiled_ends_the_run_with_an_error(
    tmp_path, config, monkeypatch
):
    """The forward pass is compiled, and then the compiler is gone."""
    from torch._inductor.exc import InvalidCxxCompiler

    original = SegmentationTraining.backward

    def no_compiler():
        raise InvalidCxxCompiler

    def backward(self, *args):
        monkeypatch.setattr('torch._inductor.cpp_builder.get_cpp_compiler', no_compiler)
        original(self, *args)

    monkeypatch.setattr(SegmentationTraining, 'backward', backward)
    # An earlier run, in this process or another, may have left the compiled backward pass.
    torch._dynamo.reset()
    monkeypatch.setattr('torch._inductor.config.force_disable_caches', True)
    with pytest.raises(SartmError, match=r'cannot be compiled: .*; leave compile out'):
        train(config, tmp_path / 'run', ['compile=true'])
