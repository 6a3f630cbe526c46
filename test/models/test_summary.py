"""Counts of parameters and floating point operations."""

from __future__ import annotations

import json

import torch
from untrained_checkpoint import save_untrained

from sartm_model.config import ModelConfig
from sartm_model.models.checkpoint import build, load
from sartm_model.models.summary import count_flops, describe


def test_describe_counts_parameters(tmp_path):
    path = save_untrained(tmp_path / 'untrained.safetensors')
    described = describe(path, 64, 64)
    parameters = build(load(path), merged=False).parameters()
    assert described['parameters']['total'] == sum(p.numel() for p in parameters)
    assert described['model']['size'] == 'nano'
    json.dumps(described)


def test_flops_by_hand():
    """Attention is counted too, although the CPU has a fused kernel for it."""

    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = ModelConfig()
            self.conv = torch.nn.Conv2d(3, 8, kernel_size=3, padding=1, stride=2)
            self.grouped = torch.nn.Conv2d(8, 8, kernel_size=3, padding=1, groups=8)
            self.linear = torch.nn.Linear(8, 24)

        def segment(self, images):
            x = (
                self.grouped(self.conv(images['rgb'] + images['thermal']))
                .flatten(2)
                .transpose(1, 2)
            )  # [1, N, 8]
            q, k, v = self.linear(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    pixels = 5 * 8  # of 10x16 with stride 2
    by_hand = 2 * pixels * (8 * 3 * 9 + 8 * 9 + 8 * 24)  # one multiply-add a weight and pixel
    by_hand += 2 * (2 * 2 * pixels**2 * 4)  # Q K^T and A V, two heads of width 4
    assert count_flops(Toy(), 10, 16) == by_hand


def test_products_that_are_added_in_place_count_as_others_do():
    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = ModelConfig()
            self.weight = torch.nn.Parameter(torch.ones(3, 7))

        def segment(self, images):
            x = images['rgb'].flatten(2).transpose(1, 2)  # [1, N, 3]
            total = x.new_zeros(1, x.shape[1], 7).baddbmm_(x, self.weight[None])
            return total[0].addmm_(x[0], self.weight)

    assert count_flops(Toy(), 10, 16) == 2 * (2 * 160 * 3 * 7)
