"""What the measurement of scaling writes down and draws, not how long anything takes."""

from __future__ import annotations

import json
import math
import multiprocessing
import threading

import cv2
import numpy as np
import pytest
from untrained import save_untrained

from sartm_model import rigs, scaling
from sartm_model.benchmark import images
from sartm_model.checkpoint import count_flops
from sartm_model.errors import SartmError
from sartm_model.predictor import Predictor
from sartm_model.scaling_plots import plots_png

SHAPE = (64, 96)
ABOUT = {'device', 'threads', 'precision', 'engine'}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('scaling') / 'untrained.safetensors')


def test_cost_against_pixels(checkpoint, monkeypatch):
    monkeypatch.setattr(scaling, '_peak_memory_mib', lambda *_: 60.0)  # each takes a process
    shapes = [(32, 32), SHAPE]
    found = scaling.by_pixels(checkpoint, ['nano'], shapes, device='cpu', iterations=1)
    rows = [(one['network'], tuple(one['image'])) for one in found]
    assert rows == [(network, shape) for network in ('untrained', 'nano') for shape in shapes]
    for small, large in (found[:2], found[2:]):
        times = math.log(large['median_ms'] / small['median_ms'])
        slope = times / math.log(64 * 96 / 32**2)  # two points are on one line
        assert small['exponent'] == large['exponent'] == pytest.approx(slope, abs=0.01)
        assert small['peak_memory_mib'] == 60.0
    model = Predictor(checkpoint, device='cpu', engine='eager').network.model
    assert found[1]['gflop'] == found[3]['gflop'] == round(count_flops(model, *SHAPE) / 1e9, 2)


def test_the_exponent_is_that_of_the_larger_images():
    sides = (10, 40, 80, 160)
    times_ms = [100.0] + [side**2.5 for side in sides[1:]]  # pixels are its square
    found = [
        {'image': [side, side], 'median_ms': ms} for side, ms in zip(sides, times_ms, strict=True)
    ]
    assert scaling._exponent(found) == 1.25


def test_an_image_too_large_is_left_out(checkpoint, monkeypatch):
    monkeypatch.setattr(scaling, 'LONGEST_S', 0.0)
    (only,) = scaling.by_pixels(checkpoint, [], [(32, 32), SHAPE], device='cpu', iterations=1)
    assert (only['image'], only['exponent']) == ([32, 32], None)
    assert only['peak_memory_mib'] > 50


def test_more_classes_leave_the_areas_as_they_are(tmp_path):
    rgb, thermal = images(120, 160)[0]
    labels = {}
    for count in (9, 20):
        scaling.save_with_classes('demo', count, tmp_path / 'many.safetensors')
        predictor = Predictor(tmp_path / 'many.safetensors', device='cpu')
        assert len(predictor.label_space) == count
        labels[count] = predictor.predict(rgb, thermal).labels
    assert (labels[9] == Predictor(device='cpu').predict(rgb, thermal).labels).all()
    assert len(np.unique(labels[9])) > 1
    assert (labels[20] == labels[9]).mean() > 0.99  # the tokens see each other more than once


def test_each_part_is_laid_over_the_others(checkpoint, tmp_path, monkeypatch):
    for name, value in (('SHAPE', SHAPE), ('CLASSES', (2, 12)), ('RIGS', (1, 2))):
        monkeypatch.setattr(scaling, name, value)

    def two_pairs(*arguments, **options):
        return rigs.by_rigs(*arguments, **options, seconds=0.0, rounds=2)

    monkeypatch.setattr(scaling, 'by_rigs', two_pairs)
    arguments = ['--out', str(tmp_path), '--checkpoint', str(checkpoint), '--device', 'cpu']
    assert scaling.main([*arguments, '--part', 'classes']) == 0
    alone = cv2.imread(str(tmp_path / 'scaling.png')).shape
    assert scaling.main([*arguments, '--part', 'rigs']) == 0
    result = json.loads((tmp_path / 'scaling.json').read_text())
    assert set(result) == {*ABOUT, 'classes', 'rigs'}
    assert [one['classes'] for one in result['classes']] == [2, 12]
    assert all(min(one['labels_ms'], one['confidence_ms']) > 0 for one in result['classes'])
    for count, one in zip((1, 2), result['rigs'], strict=True):
        assert one['rigs'] == count
        assert len(one['median_ms']) == len(one['p99_ms']) == len(one['peak_memory_mib']) == count
        slowest, fastest = max(one['p99_ms']), min(one['median_ms'])
        assert count / slowest <= one['pairs_per_s'] / 1e3 * 1.05
        assert 0 < fastest <= slowest
    both = cv2.imread(str(tmp_path / 'scaling.png'))
    assert (both.shape[0] > alone[0], both.shape[1] > alone[1]) == (True, True)
    assert (both < 128).any()


def test_a_rig_runs_as_long_as_it_is_asked_to(checkpoint):
    here, there = multiprocessing.Pipe()
    rig = threading.Thread(target=rigs._serve, args=(there, checkpoint, SHAPE, 'cpu'))
    rig.start()
    (once,) = rigs.ask([here], 0.0)
    (longer,) = rigs.ask([here], 0.5)
    here.close()
    rig.join(60)
    assert not rig.is_alive()
    assert len(once.times_s) == 1
    assert sum(longer.times_s[:-1]) < 0.5
    assert longer.peak_mib >= once.peak_mib > 50


def test_a_rig_that_cannot_start_is_told(tmp_path):
    with (
        pytest.raises(SartmError, match='the process of a rig ended'),
        rigs.running(1, tmp_path / 'none.safetensors', SHAPE, 'cpu'),
    ):
        pass


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path, capsys):
    arguments = ['--checkpoint', str(tmp_path / 'none.safetensors'), '--out', str(tmp_path)]
    assert scaling.main(arguments) == 2
    assert 'scaling: error: ' in capsys.readouterr().err


def test_the_picture_takes_any_number_of_networks():
    found = [
        {'network': str(n), 'image': [64, 96], 'median_ms': n + 1, 'exponent': None}
        for n in range(5)
    ]
    content = np.frombuffer(plots_png({'pixels': found}), np.uint8)
    assert cv2.imdecode(content, cv2.IMREAD_COLOR) is not None
    assert len(content) < 100_000
