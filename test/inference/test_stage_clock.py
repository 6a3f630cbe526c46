"""The clock of a prediction's stages, on the CPU and, if there is one, on a GPU."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.inference import stage_clock
from sartm_model.inference.predictor import Predictor
from sartm_model.inference.stage_clock import StageClock


def test_stages_follow_one_another_and_the_last_takes_the_rest(monkeypatch):
    now_s = iter([10.0, 10.0, 11.0, 13.0, 17.5])

    class Clock:
        perf_counter = staticmethod(lambda: next(now_s))

    monkeypatch.setattr(stage_clock, 'time', Clock)
    clock = StageClock()
    clock.end_stage('preprocess')
    clock.end_stage('network')
    assert clock.stages_s('postprocess') == {'preprocess': 1.0, 'network': 2.0, 'postprocess': 4.5}


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_the_stages_of_a_prediction_are_all_of_its_time(tmp_path, device):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('torch sees no CUDA device')
    predictor = Predictor(save_untrained(tmp_path / 'x.safetensors'), device=device)
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    predictor.predict(rgb, rgb[..., 0])
    begun_s = time.perf_counter()
    stages_s = predictor.predict(rgb, rgb[..., 0], confidence=True, overlay=True).stages_s
    wall_s = time.perf_counter() - begun_s
    assert list(stages_s) == ['preprocess', 'network', 'postprocess']
    assert all(seconds > 0 for seconds in stages_s.values())
    assert 0 < sum(stages_s.values()) <= wall_s


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')
def test_queued_work_of_a_gpu_belongs_to_its_own_stage():
    """A host clock would give the first stage next to nothing and the last one everything."""
    busy = torch.rand(4096, 4096, device='cuda')
    (busy @ busy).sum().item()
    clock = StageClock(busy.device)
    for _ in range(50):
        busy = (busy @ busy).clamp(0, 1)
    clock.end_stage('network')
    busy[0, 0].item()
    stages_s = clock.stages_s('postprocess')
    assert stages_s['network'] > 0.9 * sum(stages_s.values())
