"""The benchmark of the training loader: one line of JSON a stage and one a number of workers."""

from __future__ import annotations

import json

import pytest

from benchmarks import training_loader
from benchmarks.training_loader import main


def test_the_times_of_the_stages_add_up_and_the_loader_is_timed(tmp_path, capsys):
    config = tmp_path / 'train.yaml'
    config.write_text('data: {crop_height: 32, crop_width: 64, batch_size: 2}\n')
    arguments = ['--config', str(config), '--samples', '2', '--workers', '0']
    assert main([*arguments, '--set', 'data.thermal_noise=0.1']) == 0
    *stages, loader = map(json.loads, capsys.readouterr().out.splitlines())
    names = ['read', 'crop', 'colour and faults', 'to tensors', 'collate', 'one process']
    assert [stage['stage'] for stage in stages] == names
    assert stages[-1]['ms'] == pytest.approx(sum(stage['ms'] for stage in stages[:-1]), abs=0.05)
    assert loader['workers'] == 0
    step = 1e3 * 2 / loader['samples_per_s']  # of a batch of two
    assert loader['keeps_up_with_step_ms'] == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize(
    ('modality', 'expected'),
    [('both', [{'rgb', 'thermal'}, {'rgb', 'depth'}]), ('rgb', [{'rgb'}, {'rgb'}])],
)
def test_the_images_of_each_source_are_those_that_it_is_trained_on(
    tmp_path, capsys, monkeypatch, modality, expected
):
    config = tmp_path / 'train.yaml'
    config.write_text(
        f"""
        model: {{name: segrgbx, size: b0, modalities: [rgb, thermal, depth]}}
        data:
          train:
            - {{dataset: synthetic, frames: 1, modalities: [rgb, thermal]}}
            - {{dataset: synthetic, frames: 1, modalities: [rgb, depth]}}
          modality: {modality}
          batch_size: 2
          crop_height: 32
          crop_width: 64
        """
    )
    cropped, loaded = [], []
    crop, collate = training_loader.random_resized_crop, training_loader.default_collate

    def record_crop(frame, *arguments):
        cropped.append(frozenset(frame.images))
        return crop(frame, *arguments)

    def record_batch(batch):
        loaded.extend(set(sample.images) for sample in batch)
        return collate(batch)

    monkeypatch.setattr(training_loader, 'random_resized_crop', record_crop)
    monkeypatch.setattr(training_loader, 'default_collate', record_batch)
    assert main(['--config', str(config), '--samples', '6', '--workers', '0']) == 0
    assert set(cropped) == set(map(frozenset, expected))
    assert loaded
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['workers'] == 0


def test_a_recipe_without_a_model_is_measured_with_that_of_its_checkpoint(
    tmp_path, capsys, monkeypatch
):
    """And with a second frame of each sample, of which objects are pasted."""
    config = tmp_path / 'train.yaml'
    config.write_text(
        'start_from: demo_depth\n'
        'data: {crop_height: 32, crop_width: 64, batch_size: 2, paste_objects: 1.0}\n'
    )
    cropped, crop = [], training_loader.random_resized_crop

    def record(frame, *arguments):
        cropped.append(set(frame.images))
        return crop(frame, *arguments)

    monkeypatch.setattr(training_loader, 'random_resized_crop', record)
    assert main(['--config', str(config), '--samples', '2', '--workers', '0']) == 0
    assert cropped == [{'rgb', 'depth'}] * 4
    stages = [json.loads(line).get('stage') for line in capsys.readouterr().out.splitlines()]
    assert stages.index('paste') == stages.index('crop') + 1


def test_what_cannot_be_measured_is_one_line(tmp_path, capsys):
    config = tmp_path / 'train.yaml'
    config.write_text('data: {train: [{dataset: mfnet, root: gone}]}\n')
    assert main(['--config', str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('training_loader: ')
