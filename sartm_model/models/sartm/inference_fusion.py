"""The fusion of one level as inference computes it: from products of the trained weights.

A `CrossModalFusion` is rearranged without changing what it computes. Below, q is the query half of
a modality's projection, `[N, C]`, and Wk, Wv, Wa are a head's rows of the key, the value and the
attended half of the output projection.

- Keys and values are never computed, as K^T V = Wk (q^T q) Wv^T. The product over the N pixels is
  that of q with itself, which all heads share; the others are of size C.
- Attended values are never computed either. The other modality's context is multiplied with Wa
  first, so that one product gives the output projection of both halves.
- Batch norms are folded into the 1x1 convolutions before them.
- Maps are `[B, N, C]`, channels last, from the first operation to the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sartm_model.models.layers.fusion import LAMBDA_CHANNEL, LAMBDA_SPATIAL, CrossModalFusion


class InferenceFusion(nn.Module):
    """Fuses two maps as a trained `CrossModalFusion` does.

    Args:
        trained: in evaluation mode or not, its batch norms' running statistics are used.
    """

    def __init__(self, trained: CrossModalFusion) -> None:
        super().__init__()
        rectification, fusion = trained.rectification, trained.fusion
        attention = fusion.attention
        self.heads = attention.heads
        self.channel_weights = rectification.channel_weights
        hidden, _, to_two, _ = list[Any](rectification.spatial_weights)
        # The 1x1 convolution of both maps is the sum of one of each.
        first_half, second_half = hidden.weight[..., 0, 0].chunk(2, dim=1)
        self.spatial_first = _linear(first_half, hidden.bias)
        self.spatial_second = _linear(second_half)
        self.spatial_out = _linear(to_two.weight[..., 0, 0], to_two.bias)
        self.proj_in = nn.ModuleList((fusion.proj_in_first, fusion.proj_in_second))
        self.norms = nn.ModuleList((fusion.norm_first, fusion.norm_second))
        keys_values = torch.stack((attention.kv_first.weight, attention.kv_second.weight))
        keys, values = keys_values.chunk(2, dim=1)  # each [2, C, C], rows by head
        self.keys, self.values = _parameter(keys * attention.scale), _parameter(values)
        proj_out = (fusion.proj_out_first, fusion.proj_out_second)
        residual, attended = torch.stack([layer.weight.T for layer in proj_out]).chunk(2, dim=1)
        self.residual = _parameter(residual)  # [2, C, C]
        # The context of each modality is attended to by the other one.
        self.attended = _parameter(attended.flip(0))  # [2, C, C], rows by head
        self.bias_out = _parameter(torch.stack([layer.bias for layer in proj_out]))  # [2, C]
        reduce, depthwise, _, expand, norm_mix = list[Any](fusion.mix)
        mix_scale, mix_shift = _scale_and_shift(norm_mix)
        scale, shift = _scale_and_shift(fusion.norm)
        self.skip = _linear(fusion.skip.weight[..., 0, 0].double() * scale[:, None])
        self.mix_in = _linear(reduce.weight[..., 0, 0], reduce.bias)
        self.depthwise = depthwise
        self.mix_out = _linear(
            expand.weight[..., 0, 0].double() * (scale * mix_scale)[:, None],
            scale * (mix_scale * expand.bias.double() + mix_shift) + shift,
        )
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse the maps of both modalities, each `[B, C, h, w]`, into one of the same shape."""
        size = first.shape[-2:]
        x1, x2 = self._rectify(_to_tokens(first), _to_tokens(second))  # [B, N, C]
        h1, h2 = (layer(x).relu_() for layer, x in zip(self.proj_in, (x1, x2), strict=True))
        to_out1, to_out2 = self._output_matrices(h1, h2)  # [B, 2C, C]
        x1 = self.norms[0](torch.baddbmm(self.bias_out[0], h1, to_out1).add_(x1))
        x2 = self.norms[1](torch.baddbmm(self.bias_out[1], h2, to_out2).add_(x2))
        both = torch.cat((x1, x2), dim=-1)
        mixed = self.depthwise(_to_map(self.mix_in(both), size)).relu_()
        return _to_map(self.skip(both) + self.mix_out(_to_tokens(mixed)), size)

    def _rectify(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the FRM, see `fusion.FeatureRectification`; all are `[B, N, C]`."""
        pooled = torch.cat((x1.mean(dim=1), x2.mean(dim=1), _amax(x1), _amax(x2)), dim=1)  # [B, 4C]
        by_channel = self.channel_weights(pooled) * LAMBDA_CHANNEL  # [B, 2C]
        hidden = self.spatial_first(x1).add_(self.spatial_second(x2)).relu_()
        by_position = self.spatial_out(hidden).sigmoid_() * LAMBDA_SPATIAL  # [B, N, 2]
        to_second, to_first = (
            channel[:, None] + position
            for channel, position in zip(
                by_channel.chunk(2, dim=1), by_position.chunk(2, dim=2), strict=True
            )
        )
        return torch.addcmul(x1, to_first, x2), torch.addcmul(x2, to_second, x1)

    def _output_matrices(self, h1: Tensor, h2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrices, `[B, 2C, C]`, from each modality's projection to its output.

        Args:
            h1, h2: `[B, N, 2C]`, residual and query of each modality.

        The sums over all pixels exceed the largest half-precision number on ordinary images, so
        they and the context are computed in float32 even if the network runs in half precision.
        """
        batch, _, channels = h1.shape
        grams = torch.stack([_gram(h[..., channels // 2 :]) for h in (h1, h2)])[:, :, None]
        keys, values, attended = (
            weight.unflatten(1, (self.heads, -1))[:, None]  # [2, 1, heads, d, C]
            for weight in (self.keys, self.values, self.attended)
        )
        context = (keys.float() @ grams @ values.float().mT).softmax(dim=-2)  # [.., heads, d, d]
        to_second, to_first = (context.to(h1.dtype) @ attended).flatten(2, 3)  # [B, C, C]
        residual1, residual2 = self.residual[:, None].expand(-1, batch, -1, -1)
        return torch.cat((residual1, to_first), dim=1), torch.cat((residual2, to_second), dim=1)


def _gram(x: Tensor) -> Tensor:
    """Return x^T x, float32 `[B, C, C]`, of `[B, N, C]`."""
    if x.dtype == torch.float32:
        return x.mT @ x
    if x.device.type == 'cuda':
        return torch.bmm(x.mT, x, out_dtype=torch.float32)  # without a copy of x in float32
    x = x.float()
    return x.mT @ x


def _amax(x: Tensor) -> Tensor:
    """Return the largest value of each channel, `[B, C]`, of `[B, N, C]`.

    The first step is vectorised over four pixels. Over the 16 channels of the finest level of a
    small network alone, torch takes 20 times as long on a CPU.
    """
    batch, pixels, channels = x.shape  # each map has a multiple of four pixels
    return x.view(batch, pixels // 4, 4 * channels).amax(dim=1).view(batch, 4, channels).amax(dim=1)


def _to_tokens(x: Tensor) -> Tensor:
    """`[B, C, h, w]` -> `[B, h w, C]`, without a copy where channels are last in memory."""
    return x.flatten(2).transpose(1, 2).contiguous()


def _to_map(x: Tensor, size: torch.Size) -> Tensor:
    """`[B, h w, C]` -> `[B, C, h, w]` with channels last in memory."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what a batch norm in evaluation multiplies with and adds, float64 `[C]`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().contiguous(), requires_grad=False)
