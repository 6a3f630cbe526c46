"""The benchmark of the training loader: one line of JSON a stage and one a number of workers."""

from __future__ import annotations

import json

import pytest

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
