"""The benchmark of the training loader: one line of JSON a number of workers."""

from __future__ import annotations

import json

import pytest

from benchmarks.training_loader import main
from sartm_model.data import sampling


def test_the_loader_is_timed_with_each_number_of_workers(tmp_path, capsys):
    config = tmp_path / 'train.yaml'
    config.write_text('data: {crop_height: 32, crop_width: 64, batch_size: 2}\n')
    arguments = ['--config', str(config), '--samples', '2', '--workers', '0', '1']
    assert main([*arguments, '--set', 'data.batch_size=3']) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line['workers'] for line in lines] == [0, 1]
    for line in lines:
        step = 1e3 * 3 / line['samples_per_s']
        assert line['keeps_up_with_step_ms'] == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize(('modality', 'expected'), [('both', ['rgb', 'depth']), ('rgb', ['rgb'])])
def test_a_recipe_without_a_model_is_measured_with_that_of_its_checkpoint(
    tmp_path, monkeypatch, modality, expected
):
    config = tmp_path / 'train.yaml'
    config.write_text(
        'start_from: demo_depth\n'
        f'data: {{crop_height: 32, crop_width: 64, batch_size: 2, modality: {modality}}}\n'
    )
    images, augment = [], sampling.augment

    def record(frame, *arguments, **settings):
        images.append(list(frame.images))
        return augment(frame, *arguments, **settings)

    monkeypatch.setattr(sampling, 'augment', record)
    assert main(['--config', str(config), '--samples', '2', '--workers', '0']) == 0
    assert images
    assert images == [expected] * len(images)


def test_what_cannot_be_measured_is_one_line(tmp_path, capsys):
    config = tmp_path / 'train.yaml'
    config.write_text('data: {train: [{dataset: mfnet, root: gone}]}\n')
    assert main(['--config', str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('training_loader: ')
