"""Layers that compute what several trained ones do, from products of their weights."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar('Layer', nn.Linear, nn.Conv2d)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what a batch norm in evaluation multiplies with and adds, float64 `[C]`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def make_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a frozen linear layer, in float32, of a weight `[d_out, d_in]` and a bias."""
    return _filled(nn.Linear(weight.shape[1], weight.shape[0]), weight, bias)


def make_conv_1x1(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a frozen 1x1 convolution, in float32, of a weight `[d_out, d_in]` and a bias."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    return _filled(conv, weight[..., None, None], bias)


@torch.no_grad()
def _filled(layer: Layer, weight: Tensor, bias: Tensor) -> Layer:
    layer.weight.copy_(weight)
    assert layer.bias is not None
    layer.bias.copy_(bias)
    return layer.requires_grad_(False)
