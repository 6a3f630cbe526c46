"""Starts a model from the weights of SAM2 or SAM2.1.

Meta publishes them as `.pt` files with one entry, `model`, the state dict; `sam2_download` fetches
them. A file that SAM2's own fine-tuning saves has further entries beside `model`, and every name
starts with `module.` where it ran on several GPUs. Both are accepted; the weights themselves must
be those of the model's size, all of them and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartm_model.config import SAM2_SIZES
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.sartm.encoder import sam2_config
from sartm_model.models.state_dict import check_keys, load_strictly
from sartm_model.utils.text import first_line, format_names

_PREFIXES = {
    'image_encoder.trunk.': 'encoder.trunk.',
    'image_encoder.neck.convs.': 'encoder.laterals.',
    'sam_mask_decoder.conv_s0.': 'encoder.conv_s0.',
    'sam_mask_decoder.conv_s1.': 'encoder.conv_s1.',
    'sam_mask_decoder.transformer.': 'mask_decoder.masks.transformer.',
    'sam_mask_decoder.output_upscaling.': 'mask_decoder.masks.output_upscaling.',
    'sam_mask_decoder.iou_token.': 'mask_decoder.masks.iou_token.',
    'sam_prompt_encoder.pe_layer.': 'mask_decoder.position.',
}
"""How the names in SAM2's file and in `Sartm` begin; the rest of each name is the same."""


def load_sam2(model: SegmentationModel, path: Path) -> None:
    """Load SAM2's weights into a model with adapters.

    These are the image encoder, the mask decoder's transformer and upscaling, and the position
    encoding. SAM2 has four mask tokens, each with an MLP; class k starts from number k modulo 4.

    Raises:
        SartmError: the file cannot be read, or its weights are not those of SAM2 in the model's
            size; the missing, unexpected and wrongly shaped weights are named.
    """
    size = model.config.size
    if size not in SAM2_SIZES:
        raise SartmError(f'size {size} has no SAM2 weights; choose {", ".join(SAM2_SIZES)}')
    weights = _read(path)
    _identify(weights, (size,), path)
    state = model.state_dict()
    for key, value in weights.items():
        for prefix, ours in _PREFIXES.items():
            if key.startswith(prefix):
                state.update(_split_qkv(ours + key.removeprefix(prefix), value))
    state['mask_decoder.no_mask_embed'] = weights['sam_prompt_encoder.no_mask_embed.weight']
    tokens = weights['sam_mask_decoder.mask_tokens.weight']  # [4, C]
    token_of_class = torch.arange(model.num_classes) % tokens.shape[0]
    state['mask_decoder.masks.mask_tokens.weight'] = tokens[token_of_class]
    mlps = 'output_hypernetworks_mlps.'
    for key in [key for key in state if f'masks.{mlps}' in key]:
        index, _, rest = key.split(mlps)[1].partition('.')
        state[key] = weights[f'sam_mask_decoder.{mlps}{int(index) % tokens.shape[0]}.{rest}']
    load_strictly(model, state, f'SAM2 checkpoint {path}')


def sam2_state(size: str, version: str = 'sam2.1') -> dict[str, Tensor]:
    """Build the `sam2` package's own model of a size and return its random weights.

    Args:
        size: tiny, small, base_plus or large.
        version: 'sam2' or 'sam2.1'.
    """
    from hydra.utils import instantiate

    return instantiate(sam2_config(size, version).model).state_dict()


def build_sam2(path: Path) -> nn.Module:
    """Build the `sam2` package's own model, in the size and version of a file, with its weights.

    Raises:
        SartmError: the file cannot be read, or its weights are those of no size of SAM2.
    """
    from hydra.utils import instantiate

    weights = _read(path)
    version, size = _identify(weights, SAM2_SIZES, path)
    model = instantiate(sam2_config(size, version).model)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _identify(weights: Mapping[str, Tensor], sizes: Sequence[str], path: Path) -> tuple[str, str]:
    """Return the version of SAM2, and which of the sizes, a file's weights are of.

    Raises:
        SartmError: they are of none, and what differs from the most similar one.
    """
    errors = []
    for version, size in product(('sam2.1', 'sam2'), sizes):
        expected = _expected_weights(size, version)
        try:
            check_keys(expected, weights, f'{path} as {version} {size}')
        except SartmError as error:
            different = _named_shapes(expected) ^ _named_shapes(weights)
            errors.append((len(different), str(error)))
        else:
            return version, size
    raise SartmError(min(errors)[1])


def _named_shapes(weights: Mapping[str, Tensor]) -> set[tuple[str, torch.Size]]:
    return {(name, value.shape) for name, value in weights.items()}


def _read(path: Path) -> dict[str, Tensor]:
    expected = "expected SAM2's .pt, which holds the weights in an entry 'model'"
    try:
        content: Any = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise SartmError(f'no SAM2 checkpoint {path}') from None
    except Exception as error:  # torch raises many kinds: damaged archive, refused pickle, ...
        reason = first_line(error)
        raise SartmError(f'SAM2 checkpoint {path} cannot be read ({reason}); {expected}') from error
    weights = content.get('model') if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        found = format_names(content) if isinstance(content, dict) else type(content).__name__
        raise SartmError(f'SAM2 checkpoint {path} holds {found}; {expected}')
    if all(key.startswith('module.') for key in weights):  # saved from DistributedDataParallel
        return {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights


@cache
def _expected_weights(size: str, version: str) -> dict[str, Tensor]:
    """Return `sam2_state` on the meta device: names and shapes without values."""
    return {key: value.to('meta') for key, value in sam2_state(size, version).items()}


def _split_qkv(key: str, value: Tensor) -> dict[str, Tensor]:
    """Split a fused `qkv` weight or bias into the three of `SplitQkv`; return others unchanged."""
    block, is_qkv, kind = key.partition('.attn.qkv.')
    if not is_qkv:
        return {key: value}
    q, k, v = value.chunk(3)
    qkv = f'{block}.attn.qkv'
    return {
        f'{qkv}.q.base_layer.{kind}': q,
        f'{qkv}.k.{kind}': k,
        f'{qkv}.v.base_layer.{kind}': v,
    }
