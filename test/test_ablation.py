"""The ablation's table and its way from runs to it; the training itself is stood in for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from untrained import save_untrained

from sartm_model.training import ablation


def figures(miou, night):
    return {
        'miou': miou,
        'day': {'miou': miou + 1},
        'night': {'miou': night},
        'per_class_iou': {'road': 90.0, 'car': None},
        'generated': {'miou': 2 * miou},
    }


def test_the_table_is_the_mean_over_the_seeds():
    text = ablation.table({'full': [figures(20, 10), figures(30, 12)], 'RGB only': [figures(9, 8)]})
    head, _, full, rgb = text.splitlines()
    assert (
        head == '| variant | generated | each seed | mIoU | each seed | day | night | road | car |'
    )
    assert full == '| full | 50.0 | 40.0 60.0 | 25.0 | 20.0 30.0 | 26.0 | 11.0 | 90.0 | 0.0 |'
    assert rgb == '| RGB only | 18.0 | 18.0 | 9.0 | 9.0 | 10.0 | 8.0 | 90.0 | 0.0 |'


@pytest.fixture
def started(monkeypatch):
    """The commands of the trainings; each leaves an untrained model behind."""
    commands = []

    def run(command, check):
        commands.append(command)
        folder = command[command.index('--out') + 1]
        save_untrained(Path(folder) / 'last.safetensors')

    monkeypatch.setattr(subprocess, 'run', run)
    return commands


def test_every_variant_is_trained_once_and_measured_as_it_was_trained(
    tmp_path, started, monkeypatch, capsys
):
    seen = []

    def evaluate(predict, dataset):
        seen.append(dataset)
        return figures(20.0, 10.0)

    monkeypatch.setattr(ablation, 'evaluate', evaluate)
    monkeypatch.setattr(ablation, 'open_dataset', lambda *_: SimpleNamespace(names=[]))
    config = tmp_path / 'ablation.yaml'
    config.write_text(yaml.safe_dump({'steps': 3}))
    arguments = ['--config', str(config), '--out', str(tmp_path / 'runs'), '--mfnet', 'MFNET']
    arguments += ['--seeds', '0', '7', '--variants', 'full', 'RGB only']
    assert ablation.main(arguments) == 0
    assert (len(started), len(seen)) == (4, 8)
    assert started[3][-3:] == ['data.modality=rgb', 'data.drop_modality=0', 'seed=7']
    assert '| RGB only | 20.0 | 20.0 20.0 | 20.0 | 20.0 20.0 |' in capsys.readouterr().out
    # All is there: nothing is trained again.
    assert ablation.main(arguments) == 0
    assert (len(started), len(seen)) == (4, 8)
    assert json.loads((tmp_path / 'runs' / 'full_7' / 'val.json').read_text())['miou'] == 20.0


def test_a_run_that_was_stopped_is_resumed(tmp_path, started, monkeypatch):
    monkeypatch.setattr(ablation, 'evaluate', lambda *_: figures(20.0, 10.0))
    monkeypatch.setattr(ablation, 'open_dataset', lambda *_: SimpleNamespace(names=[]))
    config = tmp_path / 'ablation.yaml'
    config.write_text(yaml.safe_dump({'steps': 3}))
    stopped = tmp_path / 'runs' / 'full_0'
    stopped.mkdir(parents=True)
    (stopped / 'last.ckpt').touch()
    ablation.run(config, tmp_path / 'runs', tmp_path, 'full', 0)
    assert '--resume' in started[0]
