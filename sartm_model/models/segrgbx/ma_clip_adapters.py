"""The LoRA adapters of MA-CLIP: on CLIP's image tower, in a file, and merged into the tower.

Published is that CLIP is adapted by LoRA. Ours is where: on query and value of each attention, as
in SARTM, with W + B A and no further factor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.models.layers.peft_adapters import inject_adapters
from sartm_model.models.segrgbx.ma_clip import SplitAttention
from sartm_model.utils.files import write_file

FORMAT = 'sartm-ma-clip-1'
NAME = 'ma_clip'
"""Of the adapter, for `peft`."""


def add_adapters(tower: nn.Module, rank: int) -> None:
    """Give the attentions of a tower trainable adapters and freeze all its other weights.

    Args:
        tower: as `split_attentions` leaves it.
        rank: of the adapters.
    """
    layers = '|'.join(name.replace('.', r'\.') for name in _attentions(tower))
    inject_adapters(tower, [NAME], rank, layers=rf'({layers})\.[qv]')


def adapters_of(tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `add_adapters` added, such as `...attn.q.lora_A.weight`."""
    return {
        name.replace(f'.{NAME}.', '.'): weight.detach().cpu().contiguous()
        for name, weight in tower.named_parameters()
        if '.lora_' in name
    }


def merge(tower: nn.Module, adapters: Mapping[str, Tensor]) -> None:
    """Add adapters to the weights of a tower, as `split_attentions` leaves it.

    Raises:
        SartmError: their names or shapes do not fit the tower.
    """
    expected = {f'{name}.{part}' for name in _attentions(tower) for part in 'qv'}
    found = {key.rpartition('.lora_')[0] for key in adapters}
    try:
        if expected != found:
            raise ValueError(f'they are for {len(found)} layers, the tower has {len(expected)}')
        for name in expected:
            low, high = (adapters[f'{name}.lora_{half}.weight'] for half in 'AB')
            tower.get_parameter(f'{name}.weight').data += high @ low
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
    return [name for name, part in tower.named_modules() if isinstance(part, SplitAttention)]
