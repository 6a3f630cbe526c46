"""Labels made strip by strip, against the whole maps in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from map_sizes import CASES

from sartm_model.inference import postprocessing as labelling
from sartm_model.inference.postprocessing import label_map


def whole(heads, seen, size):
    """Mean probabilities `[K, H, W]` by definition: pixel centres, bilinear, softmax, mean."""
    maps = []
    for head in heads:
        logits = head.double().numpy()
        for axis, new, old in ((1, size[0], seen[0]), (2, size[1], seen[1])):
            last = logits.shape[axis] - 1
            at = np.clip((np.arange(new) + 0.5) * old / (4 * new) - 0.5, 0, last)
            low = np.floor(at).astype(int)
            part = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
            near, far = (np.take(logits, np.minimum(low + i, last), axis) for i in (0, 1))
            logits = near * (1 - part) + far * part
        maps.append(torch.from_numpy(logits).softmax(0).numpy())
    return np.mean(maps, axis=0)


@pytest.mark.parametrize(('seen', 'size'), CASES)
@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize('strip', [1, 5000, 1 << 18])
def test_strips_give_what_whole_maps_give(monkeypatch, seen, size, count, strip):
    monkeypatch.setattr(labelling, 'STRIP_VALUES', strip)
    generator = torch.Generator().manual_seed(sum(seen))
    padded = [-(-side // 32) * 8 for side in seen]
    heads = [torch.randn(7, *padded, generator=generator) * 3 for _ in range(count)]
    wanted = whole(heads, seen, size)
    labels, probability = label_map(heads, seen, size)
    assert labels.dtype == torch.uint8
    assert probability.shape == size
    # float32 rounds probabilities at their seventh digit; places are rounded a little coarser.
    np.testing.assert_allclose(probability, wanted.max(axis=0), atol=2e-5)
    chosen = np.take_along_axis(wanted, labels.numpy()[None].astype(int), 0)[0]
    assert (wanted.max(axis=0) - chosen).max() < 4e-5


@pytest.mark.parametrize(('seen', 'size'), CASES)
def test_all_at_once_gives_the_same(seen, size):
    """The way on a GPU without Triton."""
    generator = torch.Generator().manual_seed(sum(size))
    padded = [-(-side // 32) * 8 for side in seen]
    heads = torch.randn(2, 7, *padded, generator=generator) * 3
    wanted = whole(heads, seen, size)
    labels, probability = labelling._label_all(heads, seen, size)
    np.testing.assert_allclose(probability, wanted.max(axis=0), atol=2e-5)
    chosen = np.take_along_axis(wanted, labels.numpy()[None].astype(int), 0)[0]
    assert (wanted.max(axis=0) - chosen).max() < 4e-5


def test_the_same_as_torch_interpolates():
    heads = [torch.randn(9, 16, 24) for _ in range(2)]
    full = [
        F.interpolate(head[None], size=(64, 96), mode='bilinear')[0].softmax(0) for head in heads
    ]
    best, index = (sum(full) / 2).max(0)
    labels, probability = label_map(heads, (64, 96), (64, 96))
    torch.testing.assert_close(probability, best)
    assert (labels == index).float().mean() > 0.999


def test_where_a_head_gives_no_number_the_label_is_unknown():
    head = torch.zeros(3, 8, 8)
    head[1] = 1
    broken = head.clone()
    broken[2, 6:] = torch.nan
    labels, probability = label_map([head, broken], (32, 32), (32, 32))
    assert (labels[26:] == 255).all()
    assert (probability[26:] == 0).all()
    assert (labels[:20] == 1).all()
    assert (probability[:20] > 0.5).all()
    assert not probability.isnan().any()


def test_of_equal_classes_the_first_is_taken():
    labels, probability = label_map([torch.zeros(254, 8, 8)], (32, 32), (32, 32))
    assert (labels == 0).all()
    torch.testing.assert_close(probability, torch.full((32, 32), 1 / 254))
