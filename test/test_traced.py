"""A traced part gives what the part itself gives, for whatever shapes and values come."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn
from untrained import save_untrained

from sartm_model.network.traced import KEPT, Traced
from sartm_model.predictor import Predictor

torch.manual_seed(0)


class Counted(nn.Module):
    """W x + b, and the sum of all others; and how often Python came by."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3).requires_grad_(False)
        self.calls = 0

    def forward(self, x, others):
        self.calls += 1
        return self.linear(x), sum(other.sum() for other in others)


def given(rows):
    return torch.randn(rows, 4), (torch.randn(rows), torch.randn(2))


def agrees(part, traced, inputs):
    (one, total), (other, other_total) = traced(*inputs), part(*inputs)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(total, other_total, rtol=0, atol=0)


def test_python_is_left_out_from_the_third_call_on_and_values_may_change():
    part = Counted()
    traced = Traced(part)
    for calls in (1, 2, 2, 2):
        traced(*given(5))
        assert part.calls == calls  # once itself, once to be traced
    agrees(part, traced, given(5))


def test_shapes_of_the_second_input_count_too():
    part = Counted()
    traced = Traced(part)
    for rows in (5, 5, 5, 2, 2, 2, 5):
        agrees(part, traced, given(rows))
        agrees(part, traced, (torch.randn(5, 4), (torch.randn(rows, 2), torch.randn(3))))


def test_ever_other_shapes_are_not_traced_and_the_oldest_list_goes():
    part = Counted()
    traced = Traced(part)
    for rows in range(1, 20):
        agrees(part, traced, given(rows))
    assert not traced._lists
    for rows in range(1, KEPT + 3):
        for _ in range(2):
            traced(*given(rows))
    assert [next(iter(shapes))[0] for shapes in traced._lists] == list(range(3, KEPT + 3))


def test_weights_are_shared():
    part = Counted()
    traced = Traced(part)
    inputs = given(5)
    for _ in range(2):
        traced(*inputs)
    part.linear.weight.mul_(2)
    agrees(part, traced, inputs)


def test_what_the_part_raises_is_raised_whether_or_not_it_is_traced():
    class Part(nn.Module):
        def forward(self, x):
            raise ValueError('no such thing')

    traced = Traced(Part())
    for _ in range(3):
        with pytest.raises(ValueError, match='no such thing'):
            traced(torch.zeros(2))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('traced') / 'untrained.safetensors')


def pair(height, width, seed):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.integers(0, 256, (height, width), dtype=np.uint8)


def test_the_whole_network_goes_on_as_before_where_modalities_and_sizes_change(checkpoint):
    traced, plain = (Predictor(checkpoint, device='cpu', engine='halves') for _ in range(2))
    assert len(traced.network.model.traced) == 5  # three levels and two heads
    plain.network.model.traced.clear()
    plain.network.model.encoder._parts = {
        name: part._part for name, part in plain.network.model.encoder._parts.items()
    }
    sizes = [(96, 128)] * 4 + [(64, 96)] * 3 + [(96, 128), (70, 101)]
    for seed, size in enumerate(sizes):
        rgb, thermal = pair(*size, seed)
        for images in ((rgb, thermal), (rgb, None), (None, thermal), (rgb, thermal)):
            one, other = (each.predict(*images, confidence=True) for each in (traced, plain))
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_array_equal(one.confidence, other.confidence)


def test_a_camera_that_falls_out_meets_no_new_trace(checkpoint):
    predictor = Predictor(checkpoint, device='cpu', engine='halves')
    predictor.warm_up(96, 128)
    parts = [
        *predictor.network.model.traced.values(),
        *predictor.network.model.encoder._parts.values(),
    ]
    made = [set(part._lists) for part in parts]
    assert all(made)
    rgb, thermal = pair(96, 128, 0)
    for images in ((rgb, thermal), (rgb, None), (rgb, None), (None, thermal), (None, thermal)):
        predictor.predict(*images)
    assert [set(part._lists) for part in parts] == made


def test_weights_are_let_go_of_with_the_network(checkpoint):
    predictor = Predictor(checkpoint, device='cpu', engine='halves')
    predictor.warm_up(96, 128)
    model = predictor.network.model
    weights = [
        part._part.get_parameter(name)
        for part, name in (
            (model.traced[model.fusions[0]], 'fusion.enter_first.weight'),
            (model.encoder._parts['rgb'], 'encoder.trunk.blocks.0.attn.qkv.weight'),
        )
    ]
    held = [weight._use_count() for weight in weights]
    del predictor, model
    gc.collect()
    assert all(count > 1 for count in held)
    assert [weight._use_count() for weight in weights] == [1, 1]
