"""The fusion of one level as inference computes it: from products of the trained weights.

A `CrossModalFusion` is rearranged without changing what it computes. Below, q is the query half of
a modality's projection, `[N, C]`, and Wk, Wv, Wa are a head's rows of the key, the value and the
attended half of the output projection.

- Both modalities are one batch `[2 B, N, C]`, the first one's maps before the second one's, so that
  one operation treats both. N is the number of pixels, and channels are last from the first
  operation to the last.
- Keys and values are never computed, as K^T V = Wk (q^T q) Wv^T. The product over the N pixels is
  that of q with itself, which all heads share; the others are of size C.
- Attended values are never computed either. The other modality's context is multiplied with Wa
  first, so that one product gives the output projection of both halves.
- Weights and biases of the layer norms are folded into the 1x1 convolutions after them, batch norms
  into those before them.
- A product that is added to something is added where that lies in memory, by the same operation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.models.layers.folding import make_linear, scale_and_shift
from sartm_model.models.layers.fusion import (
    LAMBDA_CHANNEL,
    LAMBDA_SPATIAL,
    CrossAttention,
    CrossModalFusion,
    FeatureRectification,
)


class InferenceFusion(nn.Module):
    """Fuses two maps as a trained `CrossModalFusion` does.

    Args:
        trained: in evaluation mode or not, its batch norms' running statistics are used. Some of
            its modules are taken over, so it is not to be used any more.
    """

    def __init__(self, trained: CrossModalFusion) -> None:
        super().__init__()
        self.rectification = _Rectification(trained.rectification)
        fusion = trained.fusion
        self.context = _Context(fusion.attention)
        self.proj_in, self.bias_in = _stack(fusion.proj_in_first, fusion.proj_in_second)
        proj_out, self.bias_out = _stack(fusion.proj_out_first, fusion.proj_out_second)
        residual, attended = proj_out.chunk(2, dim=1)
        self.residual = _parameter(residual)  # [2, C, C]
        # The context of each modality is attended to by the other one.
        self.attended = _parameter(attended.flip(0))  # [2, C, C], rows by head
        self.norm_eps = fusion.norm_first.eps
        norms = (fusion.norm_first, fusion.norm_second)
        norm_scale = torch.cat([norm.weight for norm in norms]).double()  # [2C]
        norm_shift = torch.cat([norm.bias for norm in norms]).double()
        reduce, self.depthwise, _, expand, norm_mix = list[Any](fusion.mix)
        mix_scale, mix_shift = scale_and_shift(norm_mix)
        scale, shift = scale_and_shift(fusion.norm)
        skip = fusion.skip.weight[..., 0, 0].double() * scale[:, None]
        mix_in = reduce.weight[..., 0, 0].double()
        # The skip adds all that is constant.
        shift = scale * (mix_scale * expand.bias.double() + mix_shift) + shift
        self.skip = make_linear(skip * norm_scale, skip @ norm_shift + shift)
        self.mix_in = make_linear(mix_in * norm_scale, mix_in @ norm_shift + reduce.bias.double())
        self.mix_out = _parameter((expand.weight[..., 0, 0] * (scale * mix_scale)[:, None]).T)
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse the maps of both modalities, each `[B, C, h, w]`, into one of the same shape."""
        rectified = self.rectification(_to_tokens(first), _to_tokens(second))  # [2 B, N, C]
        return self._merge(self._attend(rectified), first.shape[-2:])

    def _attend(self, x: Tensor) -> Tensor:
        """Add to `[2 B, N, C]`, in place, the output projections of residual and attended part."""
        by_modality = x.view(2, -1, x.shape[-1])  # [2, B N, C]
        h = torch.baddbmm(self.bias_in, by_modality, self.proj_in).relu_()
        h = h.view(*x.shape[:2], -1)  # [2 B, N, 2C], residual and query
        x.baddbmm_(h, self._output_matrices(h))
        by_modality.add_(self.bias_out)
        return x

    def _output_matrices(self, h: Tensor) -> Tensor:
        """Return the matrices `[2 B, 2C, C]` from residual and query of each map to its output."""
        batch = len(h) // 2
        context = self.context(h.chunk(2, dim=-1)[1]).to(h.dtype)  # [2, B, heads, d, d]
        attended = self.attended.unflatten(1, (context.shape[2], -1))[:, None]
        to_second, to_first = (context @ attended).flatten(2, 3)  # [B, C, C]
        residual1, residual2 = self.residual[:, None].expand(-1, batch, -1, -1)
        matrices = torch.cat((residual1, to_first, residual2, to_second), dim=1)
        return matrices.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1)

    def _merge(self, x: Tensor, size: torch.Size) -> Tensor:
        """Normalise the maps of both modalities, `[2 B, N, C]`; merge them into `[B, C, h, w]`."""
        _, pixels, channels = x.shape
        x = F.layer_norm(x, (channels,), eps=self.norm_eps)
        both = torch.cat(x.chunk(2), dim=-1).flatten(0, 1)  # [B N, 2C]
        mixed = self.mix_in(both).view(-1, pixels, channels)
        mixed = _to_tokens(self.depthwise(_to_map(mixed, size)).relu_())
        fused = self.skip(both).addmm_(mixed.reshape(-1, channels), self.mix_out)
        return _to_map(fused.view(-1, pixels, channels), size)


class _Rectification(nn.Module):
    """Computes the FRM, see `fusion.FeatureRectification`."""

    def __init__(self, trained: FeatureRectification) -> None:
        super().__init__()
        into_hidden, relu, to_weights, sigmoid = list[Any](trained.channel_weights)
        # The trained layers first give the weights for what is added to the second map. Here those
        # for what is added to the first one come first.
        self.channel_weights = nn.Sequential(
            into_hidden,
            relu,
            make_linear(_swap_halves(to_weights.weight), _swap_halves(to_weights.bias)),
            sigmoid,
        )
        hidden, _, to_two, _ = list[Any](trained.spatial_weights)
        of_first, of_second = hidden.weight[..., 0, 0].chunk(2, dim=1)
        self.spatial_first = make_linear(of_first, hidden.bias)
        self.spatial_second = _parameter(of_second.T)
        self.spatial_out = make_linear(
            _swap_halves(to_two.weight[..., 0, 0]), _swap_halves(to_two.bias)
        )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Rectify the maps of both modalities, each `[B, N, C]`; return both, `[2 B, N, C]`."""
        batch, pixels, channels = x1.shape
        # One copy for two views: each map in both has the other modality's in others.
        stacked = torch.cat((x1, x2, x1))
        both, others = stacked[: 2 * batch], stacked[batch:]
        pooled = torch.cat((both.mean(dim=1), _amax(both))).view(4, batch, channels)
        by_channel = self.channel_weights(pooled.transpose(0, 1).flatten(1))  # [B, 2C]
        x1, x2 = both.view(2, -1, channels)
        hidden = self.spatial_first(x1).addmm_(x2, self.spatial_second).relu_()
        by_position = self.spatial_out(hidden).sigmoid_()  # [B N, 2]
        by_channel = by_channel.view(batch, 2, 1, channels).transpose(0, 1)  # [2, B, 1, C]
        by_position = by_position.view(batch, pixels, 2, 1).permute(2, 0, 1, 3)  # [2, B, N, 1]
        both, others = (x.view(2, batch, pixels, channels) for x in (both, others))
        rectified = both.addcmul(by_channel, others, value=LAMBDA_CHANNEL)
        return rectified.addcmul_(by_position, others, value=LAMBDA_SPATIAL).flatten(0, 1)


class _Context(nn.Module):
    """Computes softmax(K^T V / sqrt(d)), see `fusion.CrossAttention`, in its weights' precision.

    The sums over all pixels exceed the largest half-precision number on ordinary images, so that is
    float32 even if the network runs in half precision.
    """

    def __init__(self, trained: CrossAttention) -> None:
        super().__init__()
        self.heads = trained.heads
        keys_values = torch.stack((trained.kv_first.weight, trained.kv_second.weight))
        keys, values = keys_values.chunk(2, dim=1)  # each [2, C, C], rows by head
        self.keys, self.values = _parameter(keys * trained.scale), _parameter(values)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the contexts, `[2, B, heads, d, d]`, of the queries of all maps, `[2 B, N, C]`."""
        grams = _gram(queries, self.keys.dtype).unflatten(0, (2, -1))  # [2, B, C, C]
        of_keys = (self.keys[:, None] @ grams).unflatten(2, (self.heads, -1))
        values = self.values.unflatten(1, (self.heads, -1))[:, None]  # [2, 1, heads, d, C]
        return (of_keys @ values.mT).softmax(dim=-2)


def _gram(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x^T x, `[B, C, C]` in the given precision, of `[B, N, C]`."""
    if x.dtype != dtype and x.device.type == 'cuda':
        return torch.bmm(x.mT, x, out_dtype=dtype)  # without a copy of x in that precision
    x = x.to(dtype)
    return torch.bmm(x.mT, x)


def _amax(x: Tensor) -> Tensor:
    """Return the largest value of each channel, `[B, C]`, of `[B, N, C]`.

    The first step is vectorised over four pixels. Over the 16 channels of the finest level of a
    small network alone, torch takes 20 times as long on a CPU.
    """
    batch, pixels, channels = x.shape  # each map has a multiple of four pixels
    return x.view(batch, pixels // 4, 4 * channels).amax(dim=1).view(batch, 4, channels).amax(dim=1)


def _to_tokens(x: Tensor) -> Tensor:
    """`[B, C, h, w]` -> `[B, h w, C]`, a view."""
    return x.flatten(2).transpose(1, 2)


def _to_map(x: Tensor, size: torch.Size) -> Tensor:
    """`[B, h w, C]` -> `[B, C, h, w]` with channels last in memory."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


def _stack(first: nn.Linear, second: nn.Linear) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the weights `[2, d_in, d_out]` and biases `[2, 1, d_out]` of one batch of both."""
    weights = torch.stack((first.weight.T, second.weight.T))
    return _parameter(weights), _parameter(torch.stack((first.bias, second.bias))[:, None])


def _swap_halves(x: Tensor) -> Tensor:
    """Return the rows of the second half, then those of the first."""
    return x.roll(len(x) // 2, 0)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().float().contiguous(), requires_grad=False)
