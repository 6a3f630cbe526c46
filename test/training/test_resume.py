"""Stop and resume: the state of a run, the signals that stop it, and what a resume refuses."""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from processes import TIMEOUT_S, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sartm_model.cli.main import main
from sartm_model.config import TrainConfig, load_train_config
from sartm_model.data.sampling import TrainingSamples
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.callbacks import ResumeCheckpoint
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train

START_S = 180.0
"""How long a training may take to its first step on a busy machine."""


def seconds_used(processes):
    """The processor time of the process that has used least, in seconds; 0 without one."""
    return min((process.cpu_times().user for process in processes), default=0)


def losses_by_step(folder):
    rows = {}
    for path in folder.glob('metrics*.csv'):
        with path.open() as file:
            rows |= {row['step']: row['loss'] for row in csv.DictReader(file) if row.get('loss')}
    return rows


def interrupt_at(monkeypatch, step, number):
    """Send this process a signal in the middle of a step."""
    original = SegmentationTraining.training_step

    def training_step(self, batch, index):
        if self.global_step == step and index % self.config.optim.accumulate == 0:
            os.kill(os.getpid(), number)
        return original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, 'training_step', training_step)


def measurements(folder):
    rows = {}
    for path in folder.glob('metrics*.csv'):
        with path.open() as file:
            rows |= {r['step']: r['val_miou'] for r in csv.DictReader(file) if r.get('val_miou')}
    return dict(sorted(rows.items()))


def fail_at_measurement(monkeypatch, step):
    """End a run by an error in the second frame of the measurement after a step."""
    original = SegmentationTraining.validation_step

    def validation_step(self, frame, index):
        if self.global_step == step and index == 1:
            raise ConnectionAbortedError
        return original(self, frame, index)

    monkeypatch.setattr(SegmentationTraining, 'validation_step', validation_step)


def fail_at_sample(monkeypatch, number):
    """End a run by a frame that cannot be read."""
    original = TrainingSamples.__getitem__

    def getitem(self, index):
        if index == number:
            raise ConnectionAbortedError
        return original(self, index)

    monkeypatch.setattr(TrainingSamples, '__getitem__', getitem)


def test_a_run_stopped_by_sigterm_and_resumed_equals_one_that_was_not(
    tmp_path, write_config, monkeypatch
):
    # With two batches a step and a resume with another number of workers.
    config = write_config(val_every=3, optim={'lr': 1e-3, 'accumulate': 2})
    expected = checkpoints.load(train(config, tmp_path / 'whole')).state
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1, signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            train(config, tmp_path / 'parts')
    assert stopped.value.code == 143  # so that a script does not go on as if it were trained
    state = torch.load(tmp_path / 'parts' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 2
    last = train(config, tmp_path / 'parts', ['data.workers=1'], resume=True)
    found = checkpoints.load(last).state
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    losses = losses_by_step(tmp_path / 'whole')
    assert losses
    assert losses_by_step(tmp_path / 'parts').items() >= losses.items()
    # The prototypes were part of the loss.
    state = torch.load(tmp_path / 'whole' / 'last.ckpt', weights_only=True)['state_dict']
    assert state['prototypes.initialized'].any()


def test_figures_have_the_steps_that_are_printed(tmp_path, write_config, monkeypatch, capsys):
    """In both kinds of files, before and after a resumption, and at an end that is no multiple."""
    config = write_config(steps=5, val_every=2, optim={'accumulate': 2})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(config, tmp_path)
    train(config, tmp_path, resume=True)
    printed = re.findall(r'step (\d+): val mIoU', capsys.readouterr().out)
    assert printed == ['2', '4', '5']
    assert list(measurements(tmp_path)) == printed
    # A loss is logged as often as it is measured, and when the run stops.
    assert sorted(losses_by_step(tmp_path)) == ['2', '3', '4']
    events = EventAccumulator(str(tmp_path / 'events')).Reload()
    assert [event.step for event in events.Scalars('val_miou')] == [2, 4, 5]
    assert [event.step for event in events.Scalars('loss')] == [2, 3, 4]


def test_a_run_that_starts_from_a_file_of_the_name_of_its_own_result_is_resumed(
    tmp_path, write_config, monkeypatch
):
    """Its folder has a copy of the settings, beside which lies another `last.safetensors`."""
    earlier = train(write_config(steps=1, val_every=1), tmp_path / 'earlier')
    config = write_config(steps=1, val_every=1)
    monkeypatch.chdir(earlier.parent)
    overrides = ['start_from=last.safetensors', 'steps=2']
    out = Path('..', 'run')
    last = train(config, out, overrides)
    written = last.read_bytes()
    assert load_train_config(out / 'config.yaml').start_from == str(earlier)
    # What is given away says nothing of this machine.
    assert checkpoints.load(last).card['config']['start_from'] == 'last.safetensors'
    assert train(config, out, overrides, resume=True) == last
    assert last.read_bytes() == written


@pytest.mark.parametrize(
    ('cut', 'saved'),
    [
        ('signal at a measured step', 4),
        ('killed while it is measured', 2),
        ('error while it is measured', 4),
        ('error in the last measurement', 6),
        ('error in a file', 3),
        ('error in a file in the middle of a step', 2),
    ],
)
def test_a_resumed_run_has_the_measurements_and_the_best_model_of_a_whole_one(
    tmp_path, write_config, monkeypatch, cut, saved
):
    optim = {'lr': 1e-2, 'accumulate': 2}
    config = write_config(steps=6, patience=9, optim=optim)
    train(config, tmp_path / 'whole')
    expected_error = ConnectionAbortedError
    with monkeypatch.context() as patch:
        if cut == 'signal at a measured step':
            interrupt_at(patch, 3, signal.SIGTERM)
            expected_error = SystemExit
        elif 'file' in cut:
            # A step takes four samples. The batch of the first two of step 4 is loaded while that
            # before it is at hand, and so on.
            fail_at_sample(patch, {3: 14, 2: 12}[saved])
        else:
            fail_at_measurement(patch, 6 if 'last' in cut else 4)
        if 'killed' in cut:  # as by a power cut
            patch.setattr(ResumeCheckpoint, 'on_exception', lambda *_: None)
        with pytest.raises(expected_error):
            train(config, tmp_path / 'parts')
    state = torch.load(tmp_path / 'parts' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == saved
    assert checkpoints.load(tmp_path / 'parts' / 'last.safetensors').card['steps'] == saved
    (tmp_path / 'parts' / 'last.safetensors').unlink()  # the state is enough
    train(config, tmp_path / 'parts', resume=True)
    whole, parts = (measurements(tmp_path / name) for name in ('whole', 'parts'))
    assert list(whole) == ['2', '4', '6']
    assert parts == whole
    assert losses_by_step(tmp_path / 'parts').items() >= losses_by_step(tmp_path / 'whole').items()
    for name in ('best', 'last'):
        expected, found = (
            checkpoints.load(tmp_path / run / f'{name}.safetensors') for run in ('whole', 'parts')
        )
        assert found.card == expected.card
        assert all(torch.equal(found.state[key], value) for key, value in expected.state.items())
    before = (tmp_path / 'parts' / 'last.ckpt').read_bytes()
    train(config, tmp_path / 'parts', resume=True)  # it has ended
    assert (tmp_path / 'parts' / 'last.ckpt').read_bytes() == before


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(tmp_path, write_config, monkeypatch):
    """That of the last measurement: the weights of the step before may be useless already."""
    original = SegmentationTraining.training_step

    def training_step(self, batch, index):
        if self.global_step == 3:
            next(self.model.parameters()).data.fill_(torch.nan)
        return original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, 'training_step', training_step)
    with pytest.raises(SartmError, match='loss is nan at step 4'):
        train(write_config(steps=6), tmp_path / 'run')
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 2


def test_ctrl_c_saves_the_state_and_is_passed_on(tmp_path, write_config, monkeypatch):
    interrupt_at(monkeypatch, 0, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(write_config(), tmp_path / 'run')
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 1


@pytest.mark.parametrize(
    ('override', 'named'),
    [
        ('optim.lr=0.5', r'optim\.lr \(0\.0001 before, 0\.5 now\)'),
        # Two processes would use other samples at each step than one. `device` may change.
        ('devices=2', r'devices \(1 before, 2 now\)'),
    ],
)
def test_a_resume_with_other_settings_names_them(tmp_path, write_config, override, named):
    config, out = write_config(), tmp_path / 'run'
    out.mkdir()
    (out / 'config.yaml').write_text(config.read_text())
    (out / 'last.ckpt').touch()
    with pytest.raises(SartmError, match=named):
        train(config, out, [override, 'device=auto'], resume=True)


def test_a_run_is_resumed_without_what_it_started_from_and_with_moved_frames(
    tmp_path, write_config, monkeypatch, small_frames
):
    teacher = train(write_config(steps=1, val_every=1), tmp_path / 'teacher')
    config = write_config(start_from=str(teacher), optim={'lr': 1e-3})
    expected = checkpoints.load(train(config, tmp_path / 'whole')).state
    with monkeypatch.context() as patch:
        interrupt_at(patch, 0, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(config, tmp_path / 'parts')
    teacher.unlink()
    moved = tmp_path / 'moved'
    moved.symlink_to(small_frames)
    overrides = [f'data.train.0.root={moved}', f'data.val.root={moved}']
    with pytest.raises(
        SartmError, match=r'settings: data\.train\.0\.weight \(1\.0 before, 2\.0 now\);'
    ):
        train(config, tmp_path / 'parts', [*overrides, 'data.train.0.weight=2'], resume=True)
    found = checkpoints.load(train(config, tmp_path / 'parts', overrides, resume=True)).state
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize('name', ['best.safetensors', 'last.safetensors'])
def test_a_model_of_an_earlier_run_is_not_replaced(tmp_path, write_config, name):
    """The state is a large file, which people delete when a run has ended."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / name).write_bytes(b'the best so far')
    with pytest.raises(SartmError, match=rf'holds the {name} of a run without .*another folder'):
        train(write_config(), tmp_path / 'run')
    assert [path.name for path in (tmp_path / 'run').iterdir()] == [name]
    assert (tmp_path / 'run' / name).read_bytes() == b'the best so far'


def test_the_configuration_of_the_user_is_not_replaced(tmp_path, write_config):
    config = write_config().rename(tmp_path / 'config.yaml')
    config.write_text(f'# my frames\n{config.read_text()}')
    before = config.read_bytes()
    with pytest.raises(SartmError, match=r'config\.yaml is given by --config, .*another folder'):
        train(config, tmp_path)
    assert config.read_bytes() == before


def test_a_folder_is_not_used_for_two_runs_and_not_resumed_without_a_state(tmp_path, write_config):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'last.ckpt').touch()
    with pytest.raises(SartmError, match='--resume'):
        train(write_config(), tmp_path / 'run')
    with pytest.raises(SartmError, match=r'no last\.ckpt'):
        train(write_config(), tmp_path / 'other', resume=True)


@pytest.mark.parametrize('ends', ['with its last step', 'by patience'])
def test_a_run_that_has_ended_is_left_as_it_is(tmp_path, write_config, monkeypatch, capsys, ends):
    figures = {'miou': 10.0, 'per_class_iou': {}}
    monkeypatch.setattr(ConfusionMatrix, 'compute', lambda *_: figures)
    steps = {'with its last step': 2, 'by patience': 9}[ends]
    config = write_config(steps=steps, val_every=1, patience=1, loss={'language': 0})
    out = tmp_path / 'run'
    train(config, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert 'metrics.csv' in before
    capsys.readouterr()
    assert train(config, out, resume=True) == out / 'last.safetensors'
    assert 'has ended at step 2; nothing is left to train' in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_damaged_state_is_named(tmp_path, write_config):
    config, out = write_config(loss={'language': 0}), tmp_path / 'run'
    out.mkdir()
    (out / 'config.yaml').write_text(config.read_text())
    (out / 'last.ckpt').write_bytes(b'half of i')
    with pytest.raises(SartmError, match=r'last\.ckpt cannot be read .* start_from'):
        train(config, out, resume=True)


def trainer(reduce=lambda number, reduce_op: number, **values):
    """What `ResumeCheckpoint` uses of a trainer."""
    strategy = SimpleNamespace(root_device=torch.device('cpu'), reduce=reduce)
    defaults = {'global_step': 1, 'is_global_zero': True, 'should_stop': False}
    return SimpleNamespace(strategy=strategy, **{**defaults, **values})


def test_a_full_disk_leaves_the_state_that_was_there(tmp_path):
    def save_checkpoint(path, **_):
        path.write_bytes(b'half of i')
        raise OSError(errno.ENOSPC, 'No space left on device')

    (tmp_path / 'last.ckpt').write_bytes(b'whole')
    callback = ResumeCheckpoint(TrainConfig(val_every=1), tmp_path, None)
    with pytest.raises(SartmError, match='No space left'):
        callback.on_validation_end(trainer(save_checkpoint=save_checkpoint), None)
    assert [path.name for path in tmp_path.iterdir()] == ['last.ckpt']
    assert (tmp_path / 'last.ckpt').read_bytes() == b'whole'


def test_a_run_has_not_ended_before_its_last_model_is_written(tmp_path, monkeypatch):
    def save_model(path, *_):
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr('sartm_model.training.callbacks.save_model', save_model)
    (tmp_path / 'last.ckpt').write_bytes(b'earlier')
    averaged = SimpleNamespace(model=None)
    callback = ResumeCheckpoint(TrainConfig(steps=1, val_every=9), tmp_path, averaged)
    ended = trainer(save_checkpoint=lambda path, **_: path.write_bytes(b'of the last step'))
    with pytest.raises(SartmError, match=r'last\.safetensors cannot be written \(No space left'):
        callback.on_train_batch_end(ended, None, None, None, 0)
    assert [path.name for path in tmp_path.iterdir()] == ['last.ckpt']
    assert (tmp_path / 'last.ckpt').read_bytes() == b'earlier'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_run_saves_its_state(tmp_path, write_config, number):
    """A terminal sends Ctrl-C to the loader's processes, too, whose batches the step needs."""
    data = {**yaml.safe_load(write_config().read_text())['data'], 'workers': 1}
    optim = {'lr': 1e-3, 'accumulate': 8}
    config = write_config(steps=1000, val_every=1, data=data, optim=optim, loss={'language': 0})
    out = tmp_path / 'run'
    command = [sys.executable, '-m', 'sartm_model.cli', 'train', '--config', config, '--out', out]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        try:
            wait_until((out / 'last.ckpt').exists, 'a state', START_S)
            os.killpg(run.pid, number)
            printed, _ = run.communicate(timeout=TIMEOUT_S)
        finally:
            run.kill()
    assert run.returncode == 128 + number
    assert f'stopped by {number.name}; the state is in' in printed


def test_sigterm_while_frames_are_cached_leaves_no_process(tmp_path, write_config):
    source = {'dataset': 'synthetic', 'split': 'train'}
    data = {'train': [source], 'val': source, 'cache': True, 'workers': 2}
    config = write_config(data=data, loss={'language': 0})
    words = ['train', '--config', config, '--out', tmp_path / 'run']
    command = [sys.executable, '-m', 'sartm_model.cli', *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            process = psutil.Process(run.pid)
            # Not before both are at work: a pool that is interrupted while it starts may hang.
            wait_until(lambda: seconds_used(process.children()) > 0.2, 'rendered scenes', START_S)
            children = process.children()
            run.terminate()
            assert run.wait(TIMEOUT_S) == 143
        finally:
            run.kill()
    assert psutil.wait_procs(children, TIMEOUT_S)[1] == []


def test_sigterm_in_the_final_measurement_ends_with_its_status(tmp_path, write_config, monkeypatch):
    """Lightning itself handles the signal here, and would end with status 0."""
    original = SegmentationTraining.validation_step

    def validation_step(self, frame, index):
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, frame, index)

    monkeypatch.setattr(SegmentationTraining, 'validation_step', validation_step)
    config = write_config(steps=3, loss={'language': 0})
    with pytest.raises(SystemExit) as stopped:
        main(['train', '--config', str(config), '--out', str(tmp_path / 'run')])
    assert stopped.value.code == 143


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_another_process_stops_this_one_too(tmp_path, capsys, number):
    saved = []
    second = trainer(
        lambda own, reduce_op: torch.tensor(max(int(own), number)),
        is_global_zero=False,
        save_checkpoint=lambda path, **_: saved.append(path),
    )
    callback = ResumeCheckpoint(TrainConfig(val_every=100), tmp_path, None)
    callback.on_train_batch_end(second, None, None, None, 0)
    assert callback.stopped_by is number
    assert second.should_stop
    assert saved  # every process takes part in saving
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):
            callback.report(second)
    else:
        callback.report(second)  # the first process has the exit status of the run
    assert capsys.readouterr().out == ''  # the first process says it
