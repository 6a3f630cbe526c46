"""The recorded way of a frame: its fixed memory on the CPU, the graph where there is a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.data.transforms import ThermalRange
from sartm_model.errors import SartmError
from sartm_model.inference.cuda_graph import KEPT
from sartm_model.inference.predictor import Predictor

DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device'),
    ),
]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('captured') / 'untrained.safetensors')


@pytest.fixture(params=DEVICES)
def both(request, checkpoint, monkeypatch):
    """A predictor that asks for each operation, and one that replays."""
    # Two algorithms that round to 10 bits would differ on many pixels of an untrained network.
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    return [
        Predictor(checkpoint, device=request.param, precision='fp32', engine=engine)
        for engine in ('eager', 'graph')
    ]


def pairs(count=3, height=64, width=96, dtype=np.uint8):
    rng = np.random.default_rng(5)
    top = np.iinfo(dtype).max
    return [
        (
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            rng.integers(0, top, (height // 2, width // 2), dtype=dtype),
        )
        for _ in range(count)
    ]


def check_equal(first, second):
    # On a GPU other algorithms may be chosen: at the edge of two classes float32 decides.
    same = first.labels == second.labels
    assert (~same).mean() < 1e-3
    for name in ('labels', 'confidence', 'overlay'):
        one, other = getattr(first, name), getattr(second, name)
        if one is None:
            assert other is None
            continue
        assert np.abs(one.astype(int) - other)[same].max() <= 1, name
        assert other.flags.c_contiguous


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('asked', [{}, {'confidence': True}, {'confidence': True, 'overlay': True}])
def test_a_replay_gives_what_the_plain_way_gives(both, dtype, asked):
    plain, replayed = both
    for rgb, thermal in pairs(dtype=dtype):
        check_equal(plain.predict(rgb, thermal, **asked), replayed.predict(rgb, thermal, **asked))


def test_what_changes_from_pair_to_pair_needs_no_new_recording(both):
    _, replayed = both
    (rgb, thermal), *_ = pairs()
    for low in (0, 60):
        for predictor in both:
            predictor.thermal_range = ThermalRange('fixed', low, 200)
            predictor.homography = np.diag([2 + low / 100, 2, 1])
        for opacity in (0.2, 0.9):
            results = [
                predictor.predict(rgb, thermal, overlay=True, overlay_opacity=opacity)
                for predictor in both
            ]
            check_equal(*results)
    assert len(replayed._captured) == 1


def test_a_smoothed_range_goes_on_from_replay_to_replay(both):
    for predictor in both:
        predictor.thermal_range = ThermalRange(smoothing_s=0.5)
    plain, replayed = both
    for index, (rgb, thermal) in enumerate(pairs(dtype=np.uint16)):
        time_s = 0.1 * index
        brighter = (thermal // 4 + 8000 * index).astype(np.uint16)
        check_equal(
            plain.predict(rgb, brighter, confidence=True, time_s=time_s),
            replayed.predict(rgb, brighter, confidence=True, time_s=time_s),
        )


def test_a_recording_amid_a_video_leaves_its_range_alone(both):
    for predictor in both:
        predictor.thermal_range = ThermalRange(smoothing_s=0.5)
    plain, replayed = both
    for index, (rgb, thermal) in enumerate(pairs(dtype=np.uint16)):
        asked = {'confidence': True, 'overlay': index > 1, 'time_s': 0.1 * index}
        shifted = thermal // 4 + np.uint16(8000 * (index % 2))
        check_equal(plain.predict(rgb, shifted, **asked), replayed.predict(rgb, shifted, **asked))
        torch.testing.assert_close(plain.network.held, replayed.network.held)
    assert len(replayed._captured) == 2


def test_each_kind_of_pair_has_a_recording_and_their_number_is_bounded(both):
    plain, replayed = both
    for width in (32, 64, 96, 128, 160):
        ((rgb, thermal),) = pairs(1, width=width)
        for pair in ((rgb, thermal), (rgb, None), (None, thermal)):
            check_equal(plain.predict(*pair), replayed.predict(*pair))
            assert len(replayed._captured) <= KEPT


def test_a_result_is_not_overwritten_by_the_next(both):
    _, replayed = both
    first, second, _ = pairs()
    result = replayed.predict(*first, confidence=True)
    kept = result.labels.copy(), result.confidence.copy()
    replayed.predict(*second, confidence=True)
    np.testing.assert_array_equal(result.labels, kept[0])
    np.testing.assert_array_equal(result.confidence, kept[1])


def test_an_engine_that_is_not_there_is_refused(checkpoint):
    with pytest.raises(SartmError, match=r"engine 'steam' on cpu; expected auto"):
        Predictor(checkpoint, device='cpu', engine='steam')
