"""The LoRA adapters of MA-CLIP: on CLIP's image tower, in a file, and merged into the tower.

Published is that CLIP is adapted by LoRA. Ours is where: on query and value of each attention, as
in SARTM, with W + B A and no further factor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.models.layers.peft_adapters import inject_adapters
from sartm_model.utils.files import write_file

FORMAT = 'sartm-ma-clip-1'
NAME = 'ma_clip'
"""Of the adapter, for `peft`."""


class SplitAttention(nn.Module):
    """An `nn.MultiheadAttention` as four Linears, so that `peft` can adapt those of `q` and `v`.

    `peft` has adapters for `nn.MultiheadAttention` itself, too. They add to its weights in each
    step and subtract again, which changes the weights by rounding.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        width, self.heads = fused.embed_dim, fused.num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        with torch.no_grad():
            weights = (*fused.in_proj_weight.chunk(3), fused.out_proj.weight)
            biases = (*fused.in_proj_bias.chunk(3), fused.out_proj.bias)
            for part, weight, bias in zip(
                (self.q, self.k, self.v, self.out), weights, biases, strict=True
            ):
                part.weight.copy_(weight)
                part.bias.copy_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend, `[B, N, C]` -> `[B, N, C]` and None, as `nn.MultiheadAttention` does."""
        assert not need_weights
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, query), (self.k, key), (self.v, value))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def add_adapters(tower: nn.Module, rank: int) -> None:
    """Give the attentions of a tower trainable adapters and freeze all its other weights.

    Raises:
        SartmError: the tower has no `nn.MultiheadAttention`.
    """
    names = _attentions(tower)
    if not names:
        raise SartmError(
            f'the image tower is a {type(tower).__name__} without attentions to adapt; expected '
            'ma_clip.model to be a vision transformer such as ViT-B-32'
        )
    for name in names:
        tower.set_submodule(name, SplitAttention(tower.get_submodule(name)))  # type: ignore[arg-type]
    layers = '|'.join(name.replace('.', r'\.') for name in names)
    inject_adapters(tower, [NAME], rank, layers=rf'({layers})\.[qv]')


def adapters_of(tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `add_adapters` added, such as `...attn.q.lora_A.weight`."""
    return {
        name.replace(f'.{NAME}.', '.'): weight.detach().cpu().contiguous()
        for name, weight in tower.named_parameters()
        if '.lora_' in name
    }


def merge(tower: nn.Module, adapters: Mapping[str, Tensor]) -> None:
    """Add adapters to the weights of a tower as open_clip builds it.

    Raises:
        SartmError: their names or shapes do not fit the tower.
    """
    expected = {f'{name}.{part}' for name in _attentions(tower) for part in ('q', 'v')}
    found = {key.rpartition('.lora_')[0] for key in adapters}
    try:
        if expected != found:
            raise ValueError(f'they are for {len(found)} layers, the tower has {len(expected)}')
        for name in _attentions(tower):
            weight = tower.get_parameter(f'{name}.in_proj_weight').data
            for part, rows in (('q', weight.chunk(3)[0]), ('v', weight.chunk(3)[2])):
                low, high = (adapters[f'{name}.{part}.lora_{half}.weight'] for half in 'AB')
                rows += high @ low
    except (KeyError, ValueError, RuntimeError) as error:
        raise SartmError(f'the adapters of MA-CLIP do not fit the image tower: {error}') from error


def write_adapters(path: Path, adapters: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write adapters and their card, which `read_adapters` returns."""
    write_file(path, save(dict(adapters), {'format': FORMAT, 'card': json.dumps(dict(card))}))


def read_adapters(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the adapters of a file and their card.

    Raises:
        SartmError: the file is missing, damaged or of another kind.
    """
    expected = 'expected a .safetensors file that sartm train with stage=ma_clip wrote'
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            if metadata.get('format') != FORMAT:
                raise SartmError(
                    f'{path} has format {metadata.get("format")!r} instead of {FORMAT!r}; '
                    f'{expected}'
                )
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return state, json.loads(metadata['card'])
    except FileNotFoundError:
        raise SartmError(f'no adapters of MA-CLIP {path}; {expected}') from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise SartmError(f'{path} cannot be read ({error}); {expected}') from None


def _attentions(tower: nn.Module) -> list[str]:
    return [n for n, module in tower.named_modules() if isinstance(module, nn.MultiheadAttention)]
