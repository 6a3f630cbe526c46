"""LoRA on Hiera's attention: one low-rank adapter a modality on every query and value (eq. 6-7).

    q = x Wq + x Aq Bq,    v = x Wv + x Av Bv,    k = x Wk

A is `[d_in, r]` (Kaiming), B is `[r, d_out]` (zeros) and nothing is scaled. SAM2 fuses the three
projections in one Linear whose rows are query, key, value; where a stage begins d_out is 2 d_in, so
the rows must be counted in d_out. Two forms of the projection stand in its place:

- `SplitQkv` for training: three Linears, of which `peft` adapts the query and the value;
- `MergedQkv` for inference: one fused weight a modality, and neither `peft` nor an extra product.

Both take one batch that holds the modalities one after the other (all RGB images, then all thermal
images); which ones it holds is told by a `Route` that they share. Switching `peft`'s active adapter
between two passes would freeze the other adapter, and the first pass would leave no gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor, nn

from sartm_model.utils.torchvision_patch import patch_torchvision_ops


class Route:
    """Names the modalities of the batch now passing through the encoder, in their order."""

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = tuple(modalities)


class SplitQkv(nn.Module):
    """Hiera's fused projection as three Linears, `q` and `v` open to `peft`'s adapters."""

    def __init__(self, fused: nn.Linear, route: Route) -> None:
        super().__init__()
        self.route = route
        d_in, d_out = fused.in_features, fused.out_features // 3
        self.q, self.k, self.v = (nn.Linear(d_in, d_out) for _ in range(3))
        with torch.no_grad():
            for part, weight, bias in zip(
                (self.q, self.k, self.v), fused.weight.chunk(3), fused.bias.chunk(3), strict=True
            ):
                part.weight.copy_(weight)
                part.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[M * N, h, w, d_in]` -> `[M * N, h, w, 3 d_out]`, M the modalities of the route."""
        by_modality = x.reshape(len(self.route.modalities), -1, x.shape[-1])
        q, v = self._adapt(self.q, by_modality), self._adapt(self.v, by_modality)
        return torch.cat((q, self.k(by_modality), v), dim=-1).view(*x.shape[:-1], -1)

    def _adapt(self, layer: Any, x: Tensor) -> Tensor:
        """A `peft` layer on `[M, N, d_in]`, each modality through its own adapter.

        Equal to the layer called with one adapter name a row. That gathers and scatters the whole
        input for every adapter, which takes a third of a training step on a CPU; a slice does not.
        """
        low_rank = [
            layer.lora_B[name](layer.lora_A[name](part))
            for name, part in zip(self.route.modalities, x.unbind(0), strict=True)
        ]
        return layer.base_layer(x) + torch.stack(low_rank)


class MergedQkv(nn.Module):
    """The fused projection with each modality's adapter added to its own copy of the weight."""

    def __init__(self, d_in: int, d_out: int, modalities: Sequence[str], route: Route) -> None:
        super().__init__()
        self.route = route
        self.modalities = tuple(modalities)
        self.weight = nn.Parameter(torch.zeros(len(self.modalities), 3 * d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(3 * d_out))

    def forward(self, x: Tensor) -> Tensor:
        """`[M * N, h, w, d_in]` -> `[M * N, h, w, 3 d_out]`, M the modalities of the route."""
        weight: Tensor = self.weight
        if self.route.modalities != self.modalities:
            # A list as an index would have to be sent to the GPU, which a graph cannot record.
            weight = torch.stack([weight[self.modalities.index(m)] for m in self.route.modalities])
        by_modality = x.reshape(weight.shape[0], -1, x.shape[-1])
        # One grouped product serves both modalities, each with its own weight.
        out = torch.baddbmm(self.bias, by_modality, weight.transpose(1, 2))
        return out.view(*x.shape[:-1], -1)


def add_adapters(trunk: Hiera, modalities: Sequence[str], rank: int, route: Route) -> None:
    """Split every `qkv` of `trunk` and give it a trainable adapter of `rank` a modality."""
    patch_torchvision_ops()
    from peft import LoraConfig, inject_adapter_in_model

    for block in trunk.blocks:
        block.attn.qkv = SplitQkv(block.attn.qkv, route)
    # alpha = r makes peft's factor alpha / r one: the paper does not scale.
    config = LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=r'blocks\.\d+\.attn\.qkv\.[qv]'
    )
    with warnings.catch_warnings():
        # peft warns of a second adapter on the same layers, which is what is wanted.
        warnings.filterwarnings('ignore', message='Already found a `peft_config` attribute')
        for name in modalities:
            inject_adapter_in_model(config, trunk, adapter_name=name)


def use_merged(trunk: Hiera, modalities: Sequence[str], route: Route) -> None:
    """Put an empty `MergedQkv` in place of every `qkv` of `trunk`; `merge_state` fills it."""
    for block in trunk.blocks:
        block.attn.qkv = MergedQkv(block.attn.dim, block.attn.dim_out, modalities, route)


def merge_state(state: Mapping[str, Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """Turn the weights of a model with adapters into those of the same model merged.

    The sums are taken in float32. Weights that have no part in a projection are passed on.

    Args:
        state: a state dict with `SplitQkv` projections and one adapter for each of `modalities`.
        modalities: their names in the order of the merged weights.

    Raises:
        KeyError: where a projection or an adapter is missing from `state`.
    """
    marker = '.attn.qkv.k.weight'
    projections = [key.removesuffix('k.weight') for key in state if key.endswith(marker)]
    merged = {key: value for key, value in state.items() if '.attn.qkv.' not in key}
    for at in projections:
        per_modality = []
        for name in modalities:
            rows = [
                _adapted(state, f'{at}q', name),
                state[f'{at}k.weight'].float(),
                _adapted(state, f'{at}v', name),
            ]
            per_modality.append(torch.cat(rows))
        merged[f'{at}weight'] = torch.stack(per_modality)
        merged[f'{at}bias'] = torch.cat(
            [state[f'{at}q.base_layer.bias'], state[f'{at}k.bias'], state[f'{at}v.base_layer.bias']]
        )
    return merged


def _adapted(state: Mapping[str, Tensor], at: str, modality: str) -> Tensor:
    """W + (A B)^T as a Linear keeps it, `[d_out, d_in]`; peft keeps both factors transposed."""
    low_rank = (
        state[f'{at}.lora_B.{modality}.weight'].float()
        @ state[f'{at}.lora_A.{modality}.weight'].float()
    )
    return state[f'{at}.base_layer.weight'].float() + low_rank
