"""The comparison of joint and separate SegRGB-X on a few scenes: what it trains, its tables."""

from __future__ import annotations

import json

import pytest

pytest.importorskip('transformers', reason='needs transformers')

from benchmarks.segrgbx_comparison import main, markdown
from sartm_model.models import checkpoint as checkpoints


@pytest.mark.slow
def test_every_network_is_trained_once_and_tabled(tmp_path, capsys):
    out = tmp_path / 'comparison'
    small = ['--frames', '2', '--val-frames', '1', '--crop', '32', '64', '--batch-size', '1']
    command = [
        '--out', str(out), '--sensors', 'depth', 'event', '--steps', '4', *small, '--workers', '0',
        '--seeds', '1', '--repeats', '2', '--device', 'cpu',
    ]  # fmt: skip
    assert main(command) == 0
    comparison = json.loads((out / 'comparison.json').read_text())
    runs = comparison['runs']['seed_1']
    assert list(runs) == [
        'joint', 'joint/without_modality_embedding', 'joint/without_dsrm',
        'separate/depth', 'separate/event',
    ]  # fmt: skip
    # Each separate network has the steps in which the joint one sees its sensor.
    assert [run['steps'] for run in runs.values()] == [4, 4, 4, 2, 2]
    joint = checkpoints.load(out / 'seed_1' / 'joint' / 'last.safetensors')
    assert joint.config.modalities == ('rgb', 'depth', 'event')
    without = checkpoints.load(out / 'seed_1' / 'joint' / 'without_dsrm' / 'last.safetensors')
    assert without.config.without == ('dsrm',)
    assert not any(name.startswith('dsrm') for name in without.state)
    assert set(runs['joint']['miou']['depth']) == {'both', 'rgb', 'x'}
    cost = comparison['cost']
    assert cost['joint/without_dsrm']['parameters'] < cost['joint']['parameters']
    modified = (out / 'seed_1' / 'joint' / 'last.safetensors').stat().st_mtime_ns
    assert main(command) == 0
    assert (out / 'seed_1' / 'joint' / 'last.safetensors').stat().st_mtime_ns == modified
    assert main([*command, '--steps', '5']) == 2
    assert 'runs with another steps' in capsys.readouterr().err


def test_the_table_has_a_column_for_each_set_and_the_mean():
    def run(depth, event):
        both, alone = {'both': depth, 'rgb': 1.0, 'x': 2.0}, {'both': event, 'rgb': 3.0, 'x': 4.0}
        return {'miou': {'depth': both, 'event': alone}}

    of_seed = {
        'joint': run(20.0, 30.0),
        'joint/without_dsrm': run(10.0, 20.0),
        'separate/depth': {'miou': {'depth': {'both': 40.0, 'rgb': 5.0, 'x': 6.0}}},
        'separate/event': {'miou': {'event': {'both': 60.0, 'rgb': 7.0, 'x': 8.0}}},
    }
    runs = {'seed_1': of_seed, 'seed_2': {**of_seed, 'joint': run(24.0, 40.0)}}
    cost = {'joint': {'parameters': 8_700_000, 'gflop': 23.68, 'ms': 140.2}}
    lines = markdown({'runs': runs, 'cost': cost}).splitlines()
    assert '| network | depth | event | mean |' in lines
    assert '| one network for each sensor | 40.0 | 60.0 | 50.0 (50.0 to 50.0) |' in lines
    assert '| one for all | 22.0 | 35.0 | 28.5 (25.0 to 32.0) |' in lines
    assert '| one for all, without_dsrm | 10.0 | 20.0 | 15.0 (15.0 to 15.0) |' in lines
    assert '| one for all, given X alone | 2.0 | 4.0 | 3.0 (3.0 to 3.0) |' in lines
    assert '| joint | 8.7 | 23.7 | 140 |' in lines
