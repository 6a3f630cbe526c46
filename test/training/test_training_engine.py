"""The engine around the steps: stop and resume, several processes, what is kept and refused."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sartm_model.config import TrainConfig
from sartm_model.data.sampling import ResumableBatchSampler
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.callbacks import ResumeCheckpoint, TopKCheckpoint
from sartm_model.training.module import SartmTraining
from sartm_model.training.run import train


def write_config(folder, **values):
    """A run of seconds, with every term of the loss."""
    path = folder / 'train.yaml'
    rng = np.random.default_rng(0)
    names, embeddings = np.array(['car', 'person', 'curve']), rng.normal(size=(3, 8))
    np.savez(folder / 'text.npz', names=names, embeddings=embeddings)
    small = {
        'steps': 4,
        'val_every': 2,
        'device': 'cpu',
        'text': {'embeddings': str(folder / 'text.npz')},
        'data': {
            'val': {'split': 'val', 'frames': 1},
            'crop_height': 32,
            'crop_width': 64,
            'batch_size': 2,
            'workers': 0,
        },
    }
    path.write_text(yaml.safe_dump({**small, **values}))
    return path


def losses_by_step(folder):
    rows = {}
    for path in folder.glob('metrics*.csv'):
        with path.open() as file:
            rows |= {row['step']: row['loss'] for row in csv.DictReader(file) if row.get('loss')}
    return rows


def interrupt_at(monkeypatch, step, number):
    """Send this process a signal in the middle of a step."""
    whole = SartmTraining.training_step

    def training_step(self, batch, index):
        if self.global_step == step and index % self.config.optim.accumulate == 0:
            os.kill(os.getpid(), number)
        return whole(self, batch, index)

    monkeypatch.setattr(SartmTraining, 'training_step', training_step)


def state_of(path):
    return checkpoints.load(path).state


def test_a_run_stopped_by_sigterm_and_resumed_equals_one_that_was_not(tmp_path, monkeypatch):
    # With two batches a step and a resume with another number of workers.
    config = write_config(tmp_path, val_every=3, optim={'lr': 1e-3, 'accumulate': 2})
    whole = state_of(train(config, tmp_path / 'whole'))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1, signal.SIGTERM)
        train(config, tmp_path / 'parts')
    state = torch.load(tmp_path / 'parts' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 2
    parts = state_of(train(config, tmp_path / 'parts', ['data.workers=1'], resume=True))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    expected = losses_by_step(tmp_path / 'whole')
    assert expected
    state = torch.load(tmp_path / 'whole' / 'last.ckpt', weights_only=True)['state_dict']
    assert state['prototypes.initialized'].any()
    assert losses_by_step(tmp_path / 'parts').items() >= expected.items()


def test_ctrl_c_saves_the_state_and_is_passed_on(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 0, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(write_config(tmp_path), tmp_path / 'run')
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 1


def test_a_resume_with_other_settings_names_them(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 0, signal.SIGTERM)
    config = write_config(tmp_path)
    train(config, tmp_path / 'run')
    with pytest.raises(SartmError, match=r'optim\.lr \(0\.0001 before, 0\.5 now\)'):
        train(config, tmp_path / 'run', ['optim.lr=0.5'], resume=True)
    with pytest.raises(SartmError, match='--resume'):
        train(config, tmp_path / 'run')
    with pytest.raises(SartmError, match=r'no last\.ckpt'):
        train(config, tmp_path / 'other', resume=True)


def test_two_processes_train_as_one_with_two_batches_a_step(tmp_path):
    """Both see the same samples; gradients are averaged over processes or over batches.

    Prototypes follow each batch, but all processes at once: that term is left out here.
    """
    loss = {'prototype': 0.0}
    one = write_config(tmp_path, steps=2, loss=loss, optim={'lr': 1e-3, 'accumulate': 2})
    expected = state_of(train(one, tmp_path / 'one'))
    two = write_config(tmp_path, steps=2, loss=loss, optim={'lr': 1e-3}, devices=2)
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    command += ['-m', 'sartm_model.cli', 'train', '--config', str(two), '--out']
    done = subprocess.run(
        [*command, str(tmp_path / 'two'), 'data.val.frames=3'],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = state_of(tmp_path / 'two' / 'last.safetensors')
    # Each process's batch norm has followed its own batches; all else is the same arithmetic.
    learned = [name for name in expected if 'running_' not in name and 'num_batches' not in name]
    for name in learned:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    # Every frame of the split was measured by one of the two.
    assert 'val mIoU' in done.stdout + done.stderr


def test_the_samples_of_all_processes_are_all_samples():
    def numbers(first, rank):
        batches = iter(ResumableBatchSampler(first, 3, rank, 2))
        return [next(batches) for _ in range(4)]

    together = [
        n for pair in zip(numbers(0, 0), numbers(0, 1), strict=True) for b in pair for n in b
    ]
    assert together == list(range(24))
    assert numbers(2, 1) == [[15, 16, 17], [21, 22, 23], [27, 28, 29], [33, 34, 35]]


def test_half_precision_and_early_stopping(tmp_path, monkeypatch):
    """A run whose measurements never get better than the first ends `patience` later."""
    figures = {'miou': 10.0, 'per_class_iou': {}}
    monkeypatch.setattr('sartm_model.training.module.metrics', lambda *_: figures)
    config = write_config(tmp_path, steps=9, val_every=1, patience=2, precision='bf16-mixed')
    last = train(config, tmp_path / 'run')
    assert checkpoints.load(last).card['steps'] == 3
    events = EventAccumulator(str(tmp_path / 'run' / 'events')).Reload()
    (pictures,) = events.Tags()['images']
    # One each of RGB, thermal, truth and prediction at every measurement.
    assert [(p.height, p.width) for p in events.Images(pictures)] == [(480, 4 * 640)] * 3
    assert all(value.isfinite().all() for value in state_of(last).values())


def test_every_term_is_logged_and_a_weight_of_nothing_switches_it_off(tmp_path):
    def terms(**loss):
        values = {'loss': loss, 'model': {'prediction': 'mask'}, 'steps': 1, 'val_every': 1}
        out = tmp_path / f'auxiliary_{loss["auxiliary"]}'
        train(write_config(tmp_path, **values), out)
        with (out / 'metrics.csv').open() as file:
            row = {key: float(value) for key, value in next(csv.DictReader(file)).items() if value}
        return {key: row[key] for key in row if key not in ('epoch', 'step', 'lr')}

    whole = terms(auxiliary=0.5, prototype=3.0, language=2.0)
    assert set(whole) == {'loss', 'mask', 'auxiliary', 'prototype', 'language'}
    sums = whole['mask'] + 0.5 * whole['auxiliary'] + 2 * whole['language']
    # The first batch meets no prototype yet.
    assert whole['prototype'] == 0
    assert whole['loss'] == pytest.approx(sums, rel=1e-5)
    assert set(terms(auxiliary=0, prototype=0, language=0)) == {'loss', 'mask'}


def test_a_run_on_one_modality_learns_nothing_of_the_other(tmp_path):
    config = write_config(tmp_path, steps=2, optim={'lr': 1e-3}, ema_decay=0.0)
    state = state_of(train(config, tmp_path / 'run', ['data.modality=rgb']))
    moved = [name for name, value in state.items() if 'lora_B' in name and value.any()]
    assert moved
    assert all('rgb' in name for name in moved)


def test_a_loss_that_is_no_number_names_the_frames(tmp_path, monkeypatch):
    nan = torch.tensor(torch.nan, requires_grad=True)
    monkeypatch.setattr('sartm_model.training.module.ohem_cross_entropy', lambda *_, **__: nan)
    with pytest.raises(SartmError, match=r'loss is nan at step 0, on \S+, \S+;'):
        train(write_config(tmp_path), tmp_path / 'run')


def test_a_fault_met_by_a_worker_is_one_line(tmp_path):
    root = tmp_path / 'mfnet'
    for kind, image in (('rgb', np.zeros((64, 96, 3))), ('thermal', np.zeros((64, 96)))):
        (root / kind).mkdir(parents=True)
        cv2.imwrite(str(root / kind / '1N.png'), image)
    (root / 'labels').mkdir()
    cv2.imwrite(str(root / 'labels' / '1N.png'), np.full((64, 96), 77))
    (root / 'train.txt').write_text('1N\n')
    config = write_config(tmp_path)
    overrides = [f'data.train=[{{dataset: mfnet, root: {root}}}]', 'data.workers=1']
    with pytest.raises(SartmError, match=r'1N\.png.*77') as caught:
        train(config, tmp_path / 'run', overrides)
    assert '\n' not in str(caught.value)


def test_a_full_disk_leaves_the_state_that_was_there(tmp_path):
    def save_checkpoint(path, **_):
        path.write_bytes(b'half of i')
        raise OSError(errno.ENOSPC, 'No space left on device')

    (tmp_path / 'last.ckpt').write_bytes(b'whole')
    trainer = SimpleNamespace(
        global_step=2,
        is_global_zero=True,
        save_checkpoint=save_checkpoint,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, **_: decision),
    )
    callback = ResumeCheckpoint(TrainConfig(val_every=2), tmp_path, None)
    with pytest.raises(SartmError, match='No space left'):
        callback.on_train_batch_end(trainer, None, None, None, 1)
    assert [path.name for path in tmp_path.iterdir()] == ['last.ckpt']
    assert (tmp_path / 'last.ckpt').read_bytes() == b'whole'


def test_the_best_models_are_kept_in_order(tmp_path, monkeypatch):
    def save_model(path, *_, val_miou):
        path.write_text(str(val_miou))

    monkeypatch.setattr('sartm_model.training.callbacks.save_model', save_model)
    callback = TopKCheckpoint(TrainConfig(keep_best=3), tmp_path, SimpleNamespace(model=None))
    trainer = SimpleNamespace(is_global_zero=True, global_step=0, callback_metrics={})
    for miou in (20.0, 10.0, 30.0, 15.0, 25.0, 5.0):
        trainer.callback_metrics['val_miou'] = torch.tensor(miou)
        callback.on_validation_end(trainer, None)
        resumed = TopKCheckpoint(TrainConfig(keep_best=3), tmp_path, SimpleNamespace(model=None))
        resumed.load_state_dict(callback.state_dict())
        callback = resumed
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        'best.safetensors': '30.0',
        'best_2.safetensors': '25.0',
        'best_3.safetensors': '20.0',
    }


def test_frozen_parameters_have_neither_gradients_nor_optimiser_state():
    from sartm_model.config import ModelConfig
    from sartm_model.models.sartm import Sartm

    model = Sartm(ModelConfig(size='tiny'), len(MFNET))
    module = SartmTraining(model, TrainConfig(model=ModelConfig(size='tiny')), MFNET)
    [optimizer], _ = module.configure_optimizers()
    output = model(torch.randn(2, 3, 32, 64), torch.randn(2, 1, 32, 64))
    (output.mask_logits.mean() + output.auxiliary_logits.mean()).backward()
    optimizer.step()
    frozen = {p for p in model.parameters() if not p.requires_grad}
    assert sum(p.numel() for p in frozen) > 25e6
    assert all(p.grad is None and p not in optimizer.state for p in frozen)
    assert {p for group in optimizer.param_groups for p in group['params']}.isdisjoint(frozen)
