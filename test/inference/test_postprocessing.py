"""Labels and confidence against the definition, computed in float64 by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from map_sizes import CASES, extent

from sartm_model.inference import postprocessing
from sartm_model.inference.postprocessing import labels_at_once, labels_from_logits
from sartm_model.models.logits import class_probabilities, labels_and_confidence, upsample_logits
from sartm_model.utils.parallel import ParallelRunner


def expected_probabilities(heads, input_size, size):
    """Mean probabilities `[K, H, W]` by definition: pixel centres, bilinear, softmax, mean."""
    maps = []
    for head in heads:
        logits = head.double().numpy()
        for axis, new, old in ((1, size[0], input_size[0]), (2, size[1], input_size[1])):
            last = logits.shape[axis] - 1
            position = np.clip((np.arange(new) + 0.5) * old / (4 * new) - 0.5, 0, last)
            low = np.floor(position).astype(int)
            weight = (position - low).reshape([-1 if i == axis else 1 for i in range(3)])
            near, far = (np.take(logits, np.minimum(low + i, last), axis) for i in (0, 1))
            logits = near * (1 - weight) + far * weight
        powers = np.exp(logits - logits.max(axis=0))
        maps.append(powers / powers.sum(axis=0))
    return np.mean(maps, axis=0)


def random_heads(count, input_size):
    generator = torch.Generator().manual_seed(sum(input_size))
    padded = [-(-side // 32) * 8 for side in input_size]
    return [torch.randn(7, *padded, generator=generator) * 3 for _ in range(count)]


def check(labels, confidence, expected):
    assert labels.dtype == torch.uint8
    assert labels.shape == expected.shape[1:]
    # float32 rounds probabilities at their seventh digit, positions somewhat earlier.
    np.testing.assert_allclose(confidence, expected.max(axis=0), atol=2e-5)
    chosen = np.take_along_axis(expected, labels.numpy()[None].astype(int), 0)[0]
    assert (expected.max(axis=0) - chosen).max() < 4e-5


@pytest.mark.parametrize(('input_size', 'size'), CASES)
@pytest.mark.parametrize('num_heads', [1, 2])
@pytest.mark.parametrize('strip', [1, 5000, 1 << 18])
@pytest.mark.parametrize('make_runner', [lambda: None, ParallelRunner])
def test_strips_give_the_expected_labels(
    monkeypatch, input_size, size, num_heads, strip, make_runner
):
    monkeypatch.setattr(postprocessing, 'STRIP_VALUES', strip)
    heads = random_heads(num_heads, input_size)
    labels, confidence = labels_from_logits(heads, extent(input_size), size, make_runner())
    check(labels, confidence, expected_probabilities(heads, input_size, size))


@pytest.mark.parametrize(('input_size', 'size'), CASES)
def test_whole_maps_give_the_expected_labels(input_size, size):
    """As in exported files and in the evaluation, and as on a GPU."""
    heads = random_heads(2, input_size)
    logits = upsample_logits(torch.stack(heads), extent(input_size), size)
    probabilities = class_probabilities(logits)
    expected = expected_probabilities(heads, input_size, size)
    np.testing.assert_allclose(probabilities, expected, atol=2e-5)
    check(*labels_and_confidence(probabilities), expected)
    check(*labels_at_once(logits), expected)


def on_a_gpu(heads, extent, size):
    """What `labels_from_logits` computes where the logits lie on a GPU."""
    return labels_at_once(upsample_logits(torch.stack(heads), extent, size))


@pytest.mark.parametrize('label', [labels_from_logits, on_a_gpu])
@pytest.mark.parametrize('broken_value', [torch.nan, torch.inf])
def test_where_a_head_gives_no_number_the_label_is_unknown(label, broken_value):
    head = torch.zeros(3, 8, 8)
    head[1] = 1
    broken = head.clone()
    broken[2, 6:] = broken_value
    labels, confidence = label([head, broken], (8, 8), (32, 32))
    assert (labels[26:] == 255).all()
    assert (confidence[26:] == 0).all()
    assert (labels[:20] == 1).all()
    assert (confidence[:20] > 0.5).all()
    assert not confidence.isnan().any()


@pytest.mark.parametrize('label', [labels_from_logits, on_a_gpu])
def test_of_equal_classes_the_first_is_taken(label):
    labels, confidence = label([torch.zeros(255, 8, 8)], (8, 8), (32, 32))
    assert (labels == 0).all()
    torch.testing.assert_close(confidence, torch.full((32, 32), 1 / 255))


@pytest.mark.parametrize('label', [labels_from_logits, on_a_gpu])
def test_of_several_largest_classes_the_first_is_taken_at_each_pixel(label):
    logits = torch.randint(0, 3, (6, 40, 50), generator=torch.Generator().manual_seed(0)).float()
    labels, _ = label([logits, logits], (40, 50), (40, 50))
    np.testing.assert_array_equal(labels, logits.numpy().argmax(axis=0))


def test_on_another_device_than_a_cpu_the_result_has_the_same_form():
    heads = [torch.zeros(3, 8, 8, device='meta')]
    labels, confidence = labels_from_logits(heads, (8, 8), (32, 30))
    assert labels.shape == confidence.shape == (32, 30)
    assert (labels.dtype, confidence.dtype) == (torch.uint8, torch.float32)
