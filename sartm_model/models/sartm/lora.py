"""LoRA on Hiera's attention: one low-rank adapter per modality on query and value (eq. 6-7).

    q = x Wq + x Aq Bq,    v = x Wv + x Av Bv,    k = x Wk

A is `[d_in, r]` with Kaiming initialisation, B is `[r, d_out]` and starts at zero, and the product
is not scaled. SAM2 computes the three projections with one Linear, `qkv`, whose rows are query, key
and value of d_out rows each; in the first block of a stage d_out is 2 d_in. Two modules replace
that Linear:

- `SplitQkv` for training: three Linears; `peft` adapts those of query and value;
- `MergedQkv` for inference: one weight per modality with the adapters added; it needs no `peft`.

Both take a batch in which the modalities follow each other (all RGB images, then all thermal
images), and the names of these modalities, which `hiera.HieraRunner` passes to them.
`peft.set_adapter` before one pass per modality is no alternative: it freezes the other adapter, and
the first pass leaves no gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor, nn

from sartm_model.models.layers.peft_adapters import inject_adapters


class SplitQkv(nn.Module):
    """Hiera's `qkv` as three Linears, so that `peft` can adapt `q` and `v`."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        d_in, d_out = fused.in_features, fused.out_features // 3
        self.q, self.k, self.v = (nn.Linear(d_in, d_out) for _ in range(3))
        with torch.no_grad():
            for part, weight, bias in zip(
                (self.q, self.k, self.v), fused.weight.chunk(3), fused.bias.chunk(3), strict=True
            ):
                part.weight.copy_(weight)
                part.bias.copy_(bias)

    def forward(self, x: Tensor, modalities: Sequence[str]) -> Tensor:
        """Project a batch.

        Args:
            x: `[M * N, T, d_in]`, the tokens of N images of each of the M modalities.
            modalities: their names, in the order of the batch.

        Returns:
            `[M * N, T, 3 d_out]`: query, key and value.
        """
        by_modality = x.reshape(len(modalities), -1, x.shape[-1])  # [M, N T, d_in]
        q, v = (self._adapted(layer, by_modality, modalities) for layer in (self.q, self.v))
        return torch.cat((q, self.k(by_modality), v), dim=-1).view(*x.shape[:-1], -1)

    def bias_row(self) -> Tensor:
        """Return what a token of zeros is projected to, `[3 d_out]`."""
        return torch.cat(
            [getattr(part, 'base_layer', part).bias for part in (self.q, self.k, self.v)]
        )

    def _adapted(self, layer: Any, x: Tensor, modalities: Sequence[str]) -> Tensor:
        """Apply a `peft` layer to `[M, T, d_in]`, with the adapter of each modality.

        The result equals peft's own `adapter_names` argument with one name per row. Peft gathers
        and scatters the whole input for every adapter, which takes a third of a training step on a
        CPU; here the modalities are slices.
        """
        low_rank = [
            layer.lora_B[name](layer.lora_A[name](part))
            for name, part in zip(modalities, x.unbind(0), strict=True)
        ]
        return layer.base_layer(x) + torch.stack(low_rank)


class MergedQkv(nn.Module):
    """Hiera's `qkv` with one copy of the weight per modality, to which its adapters are added."""

    def __init__(self, d_in: int, d_out: int, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.weight = nn.Parameter(torch.zeros(len(self.modalities), 3 * d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(3 * d_out))

    def forward(self, x: Tensor, modalities: Sequence[str]) -> Tensor:
        """Project a batch of one modality or of all of them; see `SplitQkv.forward`."""
        if len(modalities) == 1:
            return F.linear(x, self.weight[self.modalities.index(modalities[0])], self.bias)
        assert tuple(modalities) == self.modalities
        by_modality = x.reshape(len(modalities), -1, x.shape[-1])  # [M, N T, d_in]
        # One batched product multiplies each modality with its own weight.
        out = torch.baddbmm(self.bias, by_modality, self.weight.transpose(1, 2))
        return out.view(*x.shape[:-1], -1)

    def bias_row(self) -> Tensor:
        """Return what a token of zeros is projected to, `[3 d_out]`."""
        return self.bias


def add_adapters(trunk: Hiera, modalities: Sequence[str], rank: int) -> None:
    """Replace every `qkv` of `trunk` by a `SplitQkv` with a trainable adapter per modality."""
    for block in trunk.blocks:
        block.attn.qkv = SplitQkv(block.attn.qkv)
    inject_adapters(trunk, modalities, rank, layers=r'blocks\.\d+\.attn\.qkv\.[qv]')


def use_merged(trunk: Hiera, modalities: Sequence[str]) -> None:
    """Replace every `qkv` of `trunk` by an empty `MergedQkv`, for the weights of `merge_state`."""
    for block in trunk.blocks:
        block.attn.qkv = MergedQkv(block.attn.dim, block.attn.dim_out, modalities)


def merge_state(state: Mapping[str, Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """Convert the weights of a model with adapters into those of the merged model.

    The sums are computed in float32. All weights outside of the projections stay as they are.

    Args:
        state: a state dict with `SplitQkv` projections and an adapter for each of `modalities`.
        modalities: their names in the order of the merged weights.

    Raises:
        KeyError: a projection or an adapter is missing from `state`.
    """
    marker = '.attn.qkv.k.weight'
    prefixes = [key.removesuffix('k.weight') for key in state if key.endswith(marker)]
    merged = {key: value for key, value in state.items() if '.attn.qkv.' not in key}
    for prefix in prefixes:
        per_modality = []
        for name in modalities:
            rows = [
                _add_adapter(state, f'{prefix}q', name),
                state[f'{prefix}k.weight'].float(),
                _add_adapter(state, f'{prefix}v', name),
            ]
            per_modality.append(torch.cat(rows))
        biases = [f'{prefix}{part}.bias' for part in ('q.base_layer', 'k', 'v.base_layer')]
        merged[f'{prefix}weight'] = torch.stack(per_modality)
        merged[f'{prefix}bias'] = torch.cat([state[name] for name in biases])
    return merged


def _add_adapter(state: Mapping[str, Tensor], layer: str, modality: str) -> Tensor:
    """Return W + (A B)^T in the layout of a Linear, `[d_out, d_in]`.

    peft stores A and B transposed, so that (A B)^T is the product of its lora_B and lora_A.
    """
    low_rank = (
        state[f'{layer}.lora_B.{modality}.weight'].float()
        @ state[f'{layer}.lora_A.{modality}.weight'].float()
    )
    return state[f'{layer}.base_layer.weight'].float() + low_rank
