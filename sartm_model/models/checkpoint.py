"""Checkpoints: one `.safetensors` file with weights, configuration, label space and model card.

The metadata of the file has the entries `format` and, as JSON, `model`, `labels` and `card`. The
weights are those of the model with its adapters, so that training can continue from a checkpoint;
`build` merges the adapters for inference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from sartm_model.config import ModelConfig, model_config_from_dict, to_dict
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.models.base import SegmentationModel
from sartm_model.models.registry import MODELS, model_class
from sartm_model.models.state_dict import load_strictly
from sartm_model.utils.files import write_file

KIND = 'sartm'
VERSION = 2

SHIPPED = ('demo', 'demo_depth')
"""Names of the checkpoints in the package: for RGB and thermal, and for RGB and depth."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, which `load` reads and `build` makes a model of.

    Attributes:
        path: the file it was read from.
        config: configuration of the model.
        label_space: the classes.
        card: the model card: data and their terms, command, figures.
        state: the state dict of the model with adapters.
    """

    path: Path
    config: ModelConfig
    label_space: LabelSpace
    card: dict[str, Any]
    state: dict[str, Tensor]


def resolve(checkpoint: str | Path) -> Path:
    """Return the path of a checkpoint; the names `SHIPPED` are those of the package."""
    if str(checkpoint) in SHIPPED:
        return Path(
            str(resources.files('sartm_model') / 'checkpoints' / f'{checkpoint}.safetensors')
        )
    return Path(checkpoint)


def save(
    path: Path, model: SegmentationModel, label_space: LabelSpace, card: Mapping[str, Any]
) -> None:
    """Write a model with its adapters. An interrupted call leaves no partial file.

    Args:
        path: ends in `.safetensors`.
        model: not in its inference form, in which adapters cannot be separated again.
        label_space: has as many classes as the model.
        card: the model card, any values that JSON can hold.
    """
    if model.is_inference_form:
        raise ValueError('the model is in its inference form; save the one it was made from')
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write(path, KIND, model.config, label_space, card, state)


def write(
    path: Path,
    kind: str,
    config: ModelConfig,
    label_space: LabelSpace,
    card: Mapping[str, Any],
    state: dict[str, Tensor],
    **metadata: str,
) -> None:
    """Write weights and metadata as a file of format `kind`; arguments as for `save`."""
    texts = {
        'format': f'{kind}-{VERSION}',
        'model': json.dumps(to_dict(config)),
        'labels': json.dumps(label_space.to_dict()),
        'card': json.dumps(dict(card)),
    }
    write_file(path, to_safetensors(state, {**texts, **metadata}))


def load(checkpoint: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        checkpoint: a file, or one of `SHIPPED`.

    Raises:
        SartmError: the file is missing, damaged, pickled, or not a checkpoint of SARTM.
    """
    return load_as(resolve(checkpoint), KIND)[0]


def load_as(path: Path, kind: str) -> tuple[Checkpoint, dict[str, str]]:
    """Read a file of format `kind`.

    Returns:
        The content and the metadata of the file.

    Raises:
        SartmError: as `load`.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
        config, label_space, card = _read_metadata(path, metadata, kind)
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return Checkpoint(path, config, label_space, card, state), metadata


def build(
    checkpoint: Checkpoint, *, merged: bool = True, optimized: bool = True, for_gpu: bool = False
) -> SegmentationModel:
    """Build the model of a checkpoint, on the CPU, in float32 and evaluation mode.

    Args:
        checkpoint: from `load`.
        merged: build the inference form (see `SegmentationModel.inference_form`), which needs no
            package that only training needs; otherwise the form that can be trained.
        optimized: also replace layers of the inference form by faster ones; without, it is what
            `sartm benchmark --compare` compares with.
        for_gpu: the optimized form will run on a GPU, and not on a CPU or in an exported file.

    Raises:
        SartmError: weights are missing, unexpected or of another shape; they are named.
    """
    cls, num_classes = model_class(checkpoint.config.name), len(checkpoint.label_space)
    source = f'checkpoint {checkpoint.path}'
    if merged:
        model = cls.inference_form(checkpoint.config, num_classes, checkpoint.state, source)
        model.is_inference_form = True
        if optimized:
            model.optimize_for_inference()
            model.requires_grad_(False)
            if not for_gpu:
                model.optimize_for_cpu()
    else:
        model = cls(checkpoint.config, num_classes)
        load_strictly(model, checkpoint.state, source)
    return model.eval()


def _open(path: Path) -> Any:
    """Open a safetensors file; if it is something else, raise SartmError that says what it is."""
    expected = 'expected a .safetensors checkpoint written by sartm train'
    if not path.is_file():
        raise SartmError(f'no checkpoint {path}; {expected}, or {" or ".join(SHIPPED)}')
    try:
        return safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        with path.open('rb') as file:
            start = file.read(2)
        if path.suffix == '.onnx':
            fault = 'is an exported file, which predict, evaluate, replay and the node run'
        # A zip archive (torch.save) or a bare pickle. Neither is opened: a pickle can run code.
        elif start in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
            fault = 'is pickled and is not opened'
        else:
            fault = f'is damaged or of another format ({error})'
        raise SartmError(f'checkpoint {path} {fault}; {expected}') from None


def _read_metadata(
    path: Path, metadata: Mapping[str, str], kind: str
) -> tuple[ModelConfig, LabelSpace, dict[str, Any]]:
    expected = f'{kind}-{VERSION}'
    if metadata.get('format') != expected:
        raise SartmError(
            f'checkpoint {path} has format {metadata.get("format")!r}; expected {expected!r}, as '
            'sartm train and sartm adapters write it'
        )
    try:
        config = model_config_from_dict(json.loads(metadata['model']))
        label_space = LabelSpace.from_dict(json.loads(metadata['labels']))
        card = json.loads(metadata['card'])
    except (KeyError, ValueError, SartmError) as error:
        raise SartmError(f'checkpoint {path} has damaged metadata: {error}') from error
    if config.name not in MODELS:
        raise SartmError(
            f'checkpoint {path} has a model of the name {config.name!r}; expected one of '
            f'{", ".join(MODELS)}'
        )
    return config, label_space, card
