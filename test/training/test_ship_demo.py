"""The tool that writes the shipped checkpoint: weights in half precision, and measured figures."""

from __future__ import annotations

import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.data.registry import open_dataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.models import checkpoint as checkpoints
from tools import ship_demo


def test_the_card_has_the_figures_of_each_modality(tmp_path, small_frames, monkeypatch):
    def open_small(name, root, split):
        return open_dataset('mfnet', small_frames, 'val')

    monkeypatch.setattr(ship_demo, 'open_dataset', open_small)
    source, out = save_untrained(tmp_path / 'trained.safetensors'), tmp_path / 'demo.safetensors'
    command = [str(source), '--mfnet', str(small_frames), '--out', str(out)]
    assert ship_demo.main(command) == 0
    before, after = checkpoints.load(source), checkpoints.load(out)
    assert before.state.keys() == after.state.keys()
    for name, value in before.state.items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(after.state[name], expected), name
    predictor = Predictor(out)
    selected = {
        'MFNet, 4 frames of its validation split': lambda frame: (frame.rgb, frame.thermal),
        'the same MFNet frames, RGB only': lambda frame: (frame.rgb, None),
        'the same MFNet frames, thermal only': lambda frame: (None, frame.thermal),
    }
    figures = after.card['figures_percent']
    for name, images in selected.items():
        expected = evaluate(
            lambda frame, images=images: FramePrediction(predictor.predict(*images(frame)).labels),
            open_small('mfnet', small_frames, 'val'),
        )
        assert figures[name]['miou'] == pytest.approx(expected['miou'])
        assert figures[name]['night'] == pytest.approx(expected['night']['miou'])
    assert figures['generated scenes, test, RGB and thermal']['frames'] == 4
    # A shipped checkpoint can be measured again.
    again = tmp_path / 'again.safetensors'
    assert ship_demo.main([str(out), '--out', str(again)]) == 0
    card = checkpoints.load(again).card
    assert card['note'] == 'not trained'
    assert set(card['figures_percent']) == {name for name in figures if 'MFNet' not in name}


def test_a_checkpoint_that_is_missing_is_one_line(tmp_path, capsys):
    assert ship_demo.main([str(tmp_path / 'none.safetensors'), '--mfnet', str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('ship_demo: error: no checkpoint')
    assert error.count('\n') == 1
