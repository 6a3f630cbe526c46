"""The benchmark of a training step: what it runs and prints, not how long that takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import training_step

CONFIG = Path(__file__).parents[2] / 'config' / 'train' / 'mfnet.yaml'
SMALL = (
    *('model.size=nano', "sam2_weights=''", 'loss.language=0', 'precision=32-true', 'device=cpu'),
    *('data.workers=0', 'data.batch_size=1', 'data.crop_height=64', 'data.crop_width=64'),
)


@pytest.mark.slow
def test_each_variant_has_a_line(capsys):
    command = [
        '--config', str(CONFIG), '--steps', '1', '2', '--variant', '', '--variant', 'optim.lr=0.1',
    ]  # fmt: skip
    assert training_step.main([*command, *SMALL]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == '{']
    assert [line['variant'] for line in lines] == ['', 'optim.lr=0.1']
    assert lines[0]['ratio'] == 1


def test_a_setting_that_does_not_exist_is_one_line(capsys):
    assert training_step.main(['--config', str(CONFIG), 'optim.learning=1']) == 2
    assert "'learning'" in capsys.readouterr().err
