"""Labels alone are those of the whole maps, wherever they come from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from map_sizes import CASES

from sartm_model.inference import boundary_labels as seams
from sartm_model.inference import postprocessing as labelling
from sartm_model.inference.boundary_labels import labels_alone
from sartm_model.inference.postprocessing import countdown, label_map
from sartm_model.utils.parallel import ParallelRunner


def smooth(count, classes, input_size, seed, grain=6):
    """Logits of a scene with areas: noise at one of `grain` of the size, enlarged."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-side // 32) * 8 for side in input_size)
    small = (
        torch.randn(count, classes, height // grain + 2, width // grain + 2, generator=generator)
        * 4
    )
    small[1:] = small[:1] + 0.1 * small[1:]
    return list(F.interpolate(small, size=(height, width), mode='bicubic'))


@pytest.mark.parametrize(('input_size', 'size'), CASES)
@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize('strip', [100, 1 << 18])
def test_the_labels_of_the_whole_map(monkeypatch, input_size, size, count, strip):
    monkeypatch.setattr(seams, 'STRIP_VALUES', strip)
    monkeypatch.setattr(seams, 'FEW', 1.0)
    heads = smooth(count, 7, input_size, sum(input_size))
    assert torch.equal(labels_alone(heads, input_size, size), label_map(heads, input_size, size)[0])


@pytest.mark.parametrize('at_once', [None, ParallelRunner()])
def test_most_of_a_smooth_map_needs_no_arithmetic(monkeypatch, at_once):
    heads = smooth(2, 9, (240, 320), 3, grain=24)
    wanted = label_map(heads, (240, 320), (480, 640))[0]
    computed = []

    def counted(logits):
        computed.append(logits[0, 0].numel())
        return labelling.largest(logits)

    monkeypatch.setattr(seams, 'largest', counted)
    assert torch.equal(labels_alone(heads, (240, 320), (480, 640), at_once), wanted)
    assert 0 < sum(computed) < 0.35 * wanted.numel()


def test_noise_is_left_to_the_strips(monkeypatch):
    heads = [torch.randn(9, 16, 24), torch.randn(9, 16, 24)]
    monkeypatch.setattr(seams, 'largest', None)
    assert torch.equal(
        labels_alone(heads, (64, 96), (64, 96)), label_map(heads, (64, 96), (64, 96))[0]
    )


def test_what_is_no_number_stays_unknown(monkeypatch):
    monkeypatch.setattr(seams, 'FEW', 1.0)
    heads = smooth(2, 5, (64, 64), 5)
    heads[1][3, 4:7, 9] = torch.nan
    labels = labels_alone(heads, (64, 64), (64, 64))
    assert torch.equal(labels, label_map(heads, (64, 64), (64, 64))[0])
    assert (labels == 255).any()


@pytest.mark.parametrize('wrong', [torch.inf, -torch.inf])
def test_around_an_infinite_logit_nothing_is_taken_as_known(monkeypatch, wrong):
    monkeypatch.setattr(seams, 'FEW', 1.0)
    head = torch.zeros(3, 8, 8)
    head[2] = 1
    head[1, 4, 4] = wrong
    labels = labels_alone([head], (32, 32), (32, 32))
    # Half a place on either side at most: an infinite one times nothing is not a number.
    assert (labels[16:20, 16:20] == 255).any()
    assert (labels[:13] == 2).all()
    assert (labels[24:] == 2).all()


def test_of_equal_classes_the_first():
    head = torch.zeros(4, 8, 8)
    head[[1, 3]] = 2.0
    assert (labels_alone([head, head], (32, 32), (32, 32)) == 1).all()
    values = torch.tensor([[1.0, torch.nan], [5.0, 0.0], [5.0, 0.0]])
    assert countdown(values, values.amax(0), dim=0).tolist() == [2, 0]


def test_most_classes():
    heads = smooth(1, 254, (64, 64), 8)
    assert torch.equal(
        labels_alone(heads, (64, 64), (64, 64)), label_map(heads, (64, 64), (64, 64))[0]
    )
