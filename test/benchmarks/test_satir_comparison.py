"""The comparison of starts on a few small frames: what it trains, what it skips, its table."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from mfnet_frames import write_frames

pytest.importorskip('transformers', reason='needs transformers')

from benchmarks import training_runs
from benchmarks.satir_comparison import main, markdown
from sartm_model.cli.main import main as sartm
from sartm_model.data.sources import FirstFrames
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.module import SegmentationTraining


@pytest.fixture
def arguments(tmp_path):
    """Arguments with which the comparison takes seconds."""
    pytest.importorskip('skimage', reason='needs scikit-image')
    rng = np.random.default_rng(0)
    labels = {
        f'{n}N': np.kron(rng.integers(0, 3, (2, 3)), np.ones((32, 32))).astype(np.uint8)
        for n in range(4)
    }
    root = write_frames(tmp_path / 'mfnet', labels)
    out, pseudo = tmp_path / 'comparison', tmp_path / 'pseudo'
    segments = ['--source', 'graph', '--images', str(root / 'thermal'), '--out', str(pseudo)]
    assert sartm(['pseudo-label', *segments]) == 0
    data = ['--dataset', 'mfnet', '--root', str(root), '--val-frames', '1']
    size = ['--crop', '32', '64', '--batch-size', '2', '--steps', '1', '--pretrain-steps', '1']
    other = ['--frames', '2', '--models', 'segformer-b0', '--workers', '0', '--device', 'cpu']
    labelled = ['--pseudo-labels', str(pseudo / 'data.yaml')]
    return ['--out', str(out), *data, *labelled, *size, *other]


def test_every_start_is_trained_once_and_tabled(tmp_path, arguments, capsys, monkeypatch):
    assert main([*arguments, '--seeds', '1']) == 0
    out = tmp_path / 'comparison'
    runs = json.loads((out / 'comparison.json').read_text())['runs']
    assert [(run['start'], run['labelled'], run['seed']) for run in runs] == [
        ('none', 2, 1), ('satir', 2, 1)
    ]  # fmt: skip
    assert all(
        {'miou', 'miou_foreground', 'f_measure', 'per_class_iou'} <= set(run) for run in runs
    )
    assert '| satir |' in (out / 'comparison.md').read_text()
    assert 'start anew' in capsys.readouterr().out
    config = checkpoints.load(
        out / 'segformer-b0' / 'satir' / 'frames_2' / 'seed_1' / 'last.safetensors'
    ).card['config']
    assert config['data']['modality'] == 'thermal'
    assert config['data']['train'][0]['frames_seed'] == 1
    assert config['start_from'].endswith('segformer-b0/satir/pretrain/last.safetensors')

    # What is finished is not repeated, and what is new is done.
    begun = []
    original = training_runs.train

    def counted(path, folder, **settings):
        begun.append(folder.relative_to(out).as_posix())
        return original(path, folder, **settings)

    monkeypatch.setattr(training_runs, 'train', counted)
    assert main([*arguments, '--seeds', '1', '2', '--starts', 'none']) == 0
    assert begun == ['segformer-b0/none/frames_2/seed_2']
    assert main([*arguments, '--seeds', '1', '--steps', '2']) == 2
    assert 'runs with another steps' in capsys.readouterr().err


def test_a_training_that_is_stopped_is_continued(tmp_path, arguments, monkeypatch):
    step = SegmentationTraining.training_step

    def stop(self, batch, index):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, index)

    command = [*arguments, '--steps', '2', '--seeds', '1', '--starts', 'none']
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTraining, 'training_step', stop)
        with pytest.raises(SystemExit):
            main(command)
    run = tmp_path / 'comparison' / 'segformer-b0' / 'none' / 'frames_2' / 'seed_1'
    assert checkpoints.load(run / 'last.safetensors').card['steps'] == 1
    assert not (run / 'result.json').exists()
    assert main(command) == 0
    assert checkpoints.load(run / 'last.safetensors').card['steps'] == 2


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        (['--frames', '9', '--starts', 'none'], 'train has 4 frames'),
        (['--pseudo-labels', '--starts', 'satir'], 'needs --pseudo-labels'),
        (['--starts', 'imagenet', '--segformer-weights', 'nowhere'], 'nowhere does not exist'),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, capsys, more, words):
    assert main([*arguments, *more]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_the_table_has_means_and_ranges():
    def result(start, labelled, miou):
        return {'model': 'm', 'start': start, 'labelled': labelled, 'miou': miou, 'f_measure': 50.0}

    rows = [result('none', 10, 20.0), result('none', 10, 30.0), result('satir', 10, 40.0)]
    assert markdown(rows).splitlines()[2:6] == [
        '| pretraining | mIoU % (10) | F % (10) |',
        '|---|---|---|',
        '| none | 25.0 (20.0 to 30.0) | 50.0 (50.0 to 50.0) |',
        '| satir | 40.0 | 50.0 |',
    ]


def test_frames_of_a_seed_are_nested_and_always_the_same():
    from sartm_model.data.synthetic import SyntheticScenes

    dataset = SyntheticScenes('val')
    few, more = (FirstFrames(dataset, count, seed=3) for count in (4, 9))
    assert few.names == more.names[:4]
    assert FirstFrames(dataset, 4, seed=4).names != few.names
    assert FirstFrames(dataset, 4).names == dataset.names[:4]
    assert few[2].name == few.names[2]
    torch.testing.assert_close(few[2].labels, dataset[dataset.names.index(few.names[2])].labels)
