"""Labels computed at the boundaries between classes equal those of the whole maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from map_sizes import CASES, extent

from sartm_model.inference import boundary_labels
from sartm_model.inference.boundary_labels import labels_from_boundaries
from sartm_model.inference.postprocessing import labels_from_logits
from sartm_model.models.logits import labels_and_confidence
from sartm_model.utils.parallel import ParallelRunner


def smooth_logits(num_heads, num_classes, input_size, seed, grain=6):
    """Logits of a scene with areas: noise at one `grain`th of the size, enlarged."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-side // 32) * 8 for side in input_size)
    size = (num_heads, num_classes, height // grain + 2, width // grain + 2)
    small = torch.randn(size, generator=generator) * 4
    small[1:] = small[:1] + 0.1 * small[1:]
    return list(F.interpolate(small, size=(height, width), mode='bicubic'))


def check_equal(heads, input_size, size, runner=None):
    found = labels_from_boundaries(heads, extent(input_size), size, runner)
    assert torch.equal(found, labels_from_logits(heads, extent(input_size), size)[0])
    return found


@pytest.fixture
def at_any_share(monkeypatch):
    """However many pixels lie at boundaries, they are computed alone."""
    monkeypatch.setattr(boundary_labels, 'MAX_BOUNDARY_SHARE', 1.0)


@pytest.mark.usefixtures('at_any_share')
@pytest.mark.parametrize(('input_size', 'size'), CASES)
@pytest.mark.parametrize('num_heads', [1, 2])
@pytest.mark.parametrize('strip', [100, 1 << 18])
def test_the_labels_equal_those_of_the_whole_maps(monkeypatch, input_size, size, num_heads, strip):
    monkeypatch.setattr(boundary_labels, 'STRIP_VALUES', strip)
    check_equal(smooth_logits(num_heads, 7, input_size, sum(input_size)), input_size, size)


@pytest.mark.parametrize('make_runner', [lambda: None, ParallelRunner])
def test_few_pixels_of_a_smooth_map_are_computed(monkeypatch, make_runner):
    computed = []

    def count(probabilities):
        computed.append(probabilities[0].numel())
        return labels_and_confidence(probabilities)

    monkeypatch.setattr(boundary_labels, 'labels_and_confidence', count)
    heads = smooth_logits(2, 9, (240, 320), 3, grain=24)
    check_equal(heads, (240, 320), (480, 640), make_runner())
    assert 0 < sum(computed) < 0.35 * 480 * 640


def test_a_noisy_map_is_computed_whole(monkeypatch):
    monkeypatch.setattr(boundary_labels, 'labels_and_confidence', None)  # would fail if called
    check_equal([torch.randn(9, 16, 24), torch.randn(9, 16, 24)], (64, 96), (64, 96))


@pytest.mark.usefixtures('at_any_share')
def test_what_is_not_a_number_is_unknown():
    heads = smooth_logits(2, 5, (64, 64), 5)
    heads[1][3, 4:7, 9] = torch.nan
    assert (check_equal(heads, (64, 64), (64, 64)) == 255).any()


@pytest.mark.usefixtures('at_any_share')
@pytest.mark.parametrize('wrong', [torch.inf, -torch.inf])
def test_the_surroundings_of_an_infinite_logit_are_computed(wrong):
    head = torch.zeros(3, 8, 8)
    head[2] = 1
    head[1, 4, 4] = wrong
    labels = labels_from_boundaries([head], (8, 8), (32, 32))
    # Four pixels a logit. In the middle an infinite logit is multiplied by 0.
    assert (labels[16:20, 16:20] == 255).any()
    assert (labels[:13] == 2).all()
    assert (labels[24:] == 2).all()


def test_of_equal_classes_the_first_is_taken():
    head = torch.zeros(4, 8, 8)
    head[[1, 3]] = 2.0
    assert (labels_from_boundaries([head, head], (8, 8), (32, 32)) == 1).all()


def test_as_many_classes_as_there_can_be():
    check_equal(smooth_logits(1, 255, (64, 64), 8), (64, 64), (64, 64))
