"""One `.safetensors` file a model: weights, configuration, label space and model card.

The metadata of the file holds JSON texts: `format`, `model`, `labels` and `card`. Weights are those
of the model with its adapters, so that a checkpoint can be trained further; `build` merges them.
SAM2's official `.pt` files are read by `load_sam2`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sartm_model.config import ModelConfig, model_config_from_dict, to_dict
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.encoder import sam2_config
from sartm_model.models.sartm.lora import merge_state
from sartm_model.utils.files import write_file
from sartm_model.utils.text import first_line, format_names

KIND = 'sartm'
VERSION = 2

_RENAMED_AFTER_VERSION_1 = {
    'absent': 'missing_modality_embedding',
    'enter_first': 'proj_in_first',
    'enter_second': 'proj_in_second',
    'leave_first': 'proj_out_first',
    'leave_second': 'proj_out_second',
    'widen_ifp': 'lateral_ifp',
    'widen_ffp': 'lateral_ffp',
    'classify': 'classifier',
}
"""Names of modules in files of version 1 and what they are called now."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: what `load` reads and `build` turns into a network."""

    path: Path
    config: ModelConfig
    label_space: LabelSpace
    card: dict[str, Any]
    state: dict[str, Tensor]


def resolve(checkpoint: str | Path) -> Path:
    """The file that a `--checkpoint` means: `demo` is the shipped one, all else is a path."""
    if str(checkpoint) == 'demo':
        return Path(str(resources.files('sartm_model') / 'checkpoints' / 'demo.safetensors'))
    return Path(checkpoint)


def save(path: Path, model: Sartm, label_space: LabelSpace, card: Mapping[str, Any]) -> None:
    """Write a model with its adapters; the file appears whole or not at all.

    Args:
        path: ends in `.safetensors`.
        model: not merged; merging cannot be undone.
        label_space: of as many classes as the model has.
        card: the model card, anything JSON can hold: data and their terms, command, figures.
    """
    if model.merged:
        raise ValueError('a merged model cannot be trained further; save the one it was made from')
    metadata = {
        'format': f'{KIND}-{VERSION}',
        'model': json.dumps(to_dict(model.config)),
        'labels': json.dumps(label_space.to_dict()),
        'card': json.dumps(dict(card)),
    }
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_file(path, to_safetensors(state, metadata))


def load(checkpoint: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        SartmError: the file is missing, damaged, pickled, or not a checkpoint of SARTM.
    """
    return load_as(resolve(checkpoint), KIND)[0]


def load_as(path: Path, kind: str) -> tuple[Checkpoint, dict[str, str]]:
    """Read a file whose format is `kind`, of this version or an earlier one.

    Returns:
        The content, with the weights under their present names, and the metadata as it stands.

    Raises:
        SartmError: as `load`.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
        config, label_space, card = _read_metadata(path, metadata, kind)
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if metadata['format'] == f'{kind}-1':
        state = {_present_name(key): value for key, value in state.items()}
    return Checkpoint(path, config, label_space, card, state), metadata


def build(checkpoint: Checkpoint, *, merged: bool = True) -> Sartm:
    """The network of a checkpoint, on the CPU, in float32 and evaluation mode.

    Args:
        checkpoint: from `load`.
        merged: build the inference form, which needs no `peft`; else the form that is trained.

    Raises:
        SartmError: a weight is missing, unexpected or of another shape; it is named.
    """
    state = checkpoint.state
    if merged:
        try:
            state = merge_state(state, checkpoint.config.modalities)
        except KeyError as error:
            raise SartmError(f'checkpoint {checkpoint.path} lacks the weight {error}') from None
    model = Sartm(checkpoint.config, len(checkpoint.label_space), merged=merged)
    load_strictly(model, state, f'checkpoint {checkpoint.path}')
    if merged:
        model.encoder.fuse_1x1_convs()
    return model.eval()


def describe(checkpoint: str | Path, height: int = 480, width: int = 640) -> dict[str, Any]:
    """What `sartm info` prints: configuration, labels, size, parameter counts, operations, card."""
    loaded = load(checkpoint)
    return {
        'file': str(loaded.path),
        'bytes': loaded.path.stat().st_size,
        'model': to_dict(loaded.config),
        'labels': loaded.label_space.to_dict(),
        'parameters': count_parameters(build(loaded, merged=False)),
        'flops': {
            'pair': count_flops(build(loaded), height, width),
            'height': height,
            'width': width,
        },
        'card': loaded.card,
    }


def count_parameters(model: Sartm) -> dict[str, int]:
    """Numbers of parameters: `total`, `trainable`, and those of the encoder with its adapters."""
    return {
        'total': _count(model.parameters()),
        'trainable': _count(p for p in model.parameters() if p.requires_grad),
        'encoder': _count(model.encoder.parameters()),
    }


def count_flops(model: Sartm, height: int, width: int) -> int:
    """Floating point operations of the network on one pair, a multiply-add counted as two.

    Those of convolutions, linear layers and attention are counted; element-wise work, norms and
    resizing, a small part, are not.

    Raises:
        SartmError: the size is not positive.
    """
    if height < 1 or width < 1:
        raise SartmError(f'the size is {width}x{height} pixels; expected 1 or more each way')
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, where it is there

    parameter = next(model.parameters())
    rgb, thermal = (parameter.new_zeros(1, channels, height, width) for channels in (3, 1))
    counter = FlopCounterMode(display=False)
    # The counter does not know the CPU's fused attention; the plain one is made of products.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model.segment(rgb, thermal)
    return counter.get_total_flops()


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights, every one and no other. Raises SartmError that names the first that differ."""
    compare_keys(dict(module.state_dict()), state, source)
    module.load_state_dict(state)


def compare_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise SartmError unless both hold the same names with the same shapes."""
    faults = []
    if missing := sorted(expected.keys() - found.keys()):
        faults.append(f'lacks {format_names(missing)}')
    if unexpected := sorted(found.keys() - expected.keys()):
        faults.append(f'has unexpected {format_names(unexpected)}')
    misshapen = [
        f'{key} {list(found[key].shape)} instead of {list(expected[key].shape)}'
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if misshapen:
        faults.append(f'has {format_names(misshapen)}')
    if faults:
        raise SartmError(f'{source} does not fit the model: it {"; it ".join(faults)}')


def load_sam2(model: Sartm, path: Path) -> None:
    """Start a model with adapters from SAM2's or SAM2.1's official `.pt`.

    The image encoder, the mask decoder's transformer and upscaling and the position encoding are
    taken over. SAM2 has four mask tokens, each with an MLP; class k starts from number k modulo 4.

    Raises:
        SartmError: the file is not an official SAM2 file of the model's size; the weights that are
            missing, unexpected or of another shape are named.
    """
    size = model.config.size
    if size == 'nano':
        raise SartmError('size nano has no SAM2 weights; choose tiny, small, base_plus or large')
    weights = _read_sam2_file(path)
    _check_sam2_keys(weights, size, path)
    state = model.state_dict()
    parts = {
        'image_encoder.trunk.': 'encoder.trunk.',
        'image_encoder.neck.convs.': 'encoder.laterals.',
        'sam_mask_decoder.conv_s0.': 'encoder.conv_s0.',
        'sam_mask_decoder.conv_s1.': 'encoder.conv_s1.',
        'sam_mask_decoder.transformer.': 'mask_decoder.masks.transformer.',
        'sam_mask_decoder.output_upscaling.': 'mask_decoder.masks.output_upscaling.',
        'sam_mask_decoder.iou_token.': 'mask_decoder.masks.iou_token.',
        'sam_prompt_encoder.pe_layer.': 'mask_decoder.position.',
    }
    for key, value in weights.items():
        for theirs, ours in parts.items():
            if key.startswith(theirs):
                state.update(_split_qkv(key.replace(theirs, ours, 1), value))
    state['mask_decoder.no_mask_embed'] = weights['sam_prompt_encoder.no_mask_embed.weight']
    tokens = weights['sam_mask_decoder.mask_tokens.weight']  # [4, C]
    cycled = torch.arange(model.num_classes) % tokens.shape[0]
    state['mask_decoder.masks.mask_tokens.weight'] = tokens[cycled]
    mlps = 'output_hypernetworks_mlps.'
    for key in [key for key in state if f'masks.{mlps}' in key]:
        index, _, rest = key.split(mlps)[1].partition('.')
        state[key] = weights[f'sam_mask_decoder.{mlps}{int(index) % tokens.shape[0]}.{rest}']
    load_strictly(model, state, f'SAM2 checkpoint {path}')


def _split_qkv(key: str, value: Tensor) -> dict[str, Tensor]:
    """A fused projection as the model with adapters names its parts; anything else as it is."""
    at, marker, kind = key.partition('.attn.qkv.')
    if not marker:
        return {key: value}
    q, k, v = value.chunk(3)
    at += marker
    return {f'{at}q.base_layer.{kind}': q, f'{at}k.{kind}': k, f'{at}v.base_layer.{kind}': v}


def _read_sam2_file(path: Path) -> dict[str, Tensor]:
    expected = "expected SAM2's official .pt, which holds one entry 'model'"
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise SartmError(f'no SAM2 checkpoint {path}') from None
    except Exception as error:  # torch names many: damaged archive, refused pickle, ...
        first = first_line(error)
        raise SartmError(f'SAM2 checkpoint {path} cannot be read ({first}); {expected}') from error
    if not isinstance(content, dict) or set(content) != {'model'}:
        found = sorted(map(str, content))[:3] if isinstance(content, dict) else type(content)
        raise SartmError(f'SAM2 checkpoint {path} holds {found}; {expected}')
    return content['model']


def _check_sam2_keys(weights: Mapping[str, Tensor], size: str, path: Path) -> None:
    """Hold a file against every weight of SAM2 and SAM2.1; complain by the nearer of the two."""
    complaints = []
    for version in ('sam2.1', 'sam2'):
        expected = sam2_state(size, version)
        try:
            compare_keys(expected, weights, f'{path} as {version} {size}')
            return
        except SartmError as error:
            complaints.append((len(expected.keys() ^ weights.keys()), str(error)))
    raise SartmError(min(complaints)[1])


def sam2_state(size: str, version: str = 'sam2.1') -> dict[str, Tensor]:
    """A randomly initialised state dict of `sam2`'s own model of a size."""
    from hydra.utils import instantiate

    return instantiate(sam2_config(size, version).model).state_dict()


def _open(path: Path) -> Any:
    """Open a safetensors file, or say in one line what stands in its place."""
    expected = 'expected a .safetensors checkpoint written by sartm train'
    if not path.is_file():
        raise SartmError(f'no checkpoint {path}; {expected}, or demo for the shipped one')
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        with path.open('rb') as file:
            start = file.read(2)
        # A zip archive (torch.save) or a bare pickle; neither is opened: a pickle can run code.
        if start in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
            fault = 'is pickled and is not opened'
        else:
            fault = f'is damaged or foreign ({error})'
        raise SartmError(f'checkpoint {path} {fault}; {expected}') from None


def _present_name(key: str) -> str:
    """The name today of a weight of a file of version 1."""
    return '.'.join(_RENAMED_AFTER_VERSION_1.get(part, part) for part in key.split('.'))


def _read_metadata(
    path: Path, metadata: Mapping[str, str], kind: str
) -> tuple[ModelConfig, LabelSpace, dict[str, Any]]:
    if metadata.get('format') not in [f'{kind}-{version}' for version in range(1, VERSION + 1)]:
        raise SartmError(
            f'checkpoint {path} has format {metadata.get("format")!r}; expected '
            f"'{kind}-{VERSION}' or an earlier version of it, as sartm train and sartm adapters "
            f'write them'
        )
    try:
        config = model_config_from_dict(json.loads(metadata['model']))
        label_space = LabelSpace.from_dict(json.loads(metadata['labels']))
        return config, label_space, json.loads(metadata['card'])
    except (KeyError, ValueError, SartmError) as error:
        raise SartmError(f'checkpoint {path} has damaged metadata: {error}') from error


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
