"""Writes a checkpoint as one file that other runtimes take: camera counts in, labels out.

`export_onnx` and `export_torchscript` write an `ExportedModel`. The metadata of the file says what
it takes: JSON texts `format`, `model`, `labels`, `card` and `export`.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.config import to_dict
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportConfig, ExportedModel
from sartm_model.models import checkpoint as checkpoints
from sartm_model.utils.files import write_file

FORMAT = 'sartm-export-1'
OPSET = 18
OUTPUTS = ['labels', 'confidence']
PRESENT = 'present'
"""The input of an ONNX file for both that tells which of them are there; may be left out."""


def export_onnx(checkpoint: str | Path, path: Path, config: ExportConfig) -> None:
    """Write a checkpoint as an ONNX file.

    Args:
        checkpoint: a SARTM `.safetensors` file, or 'demo'.
        path: ends in `.onnx`.
        config: what the file takes.

    Raises:
        SartmError: a package is missing, or the checkpoint cannot be used.
    """
    _check_path(path, '.onnx')
    try:
        import onnxscript  # noqa: F401  which torch.onnx needs
    except ModuleNotFoundError as error:
        raise SartmError(
            f'the export to ONNX needs {error.name}; pip install onnx onnxscript onnxruntime'
        ) from None
    module, texts = _prepare(checkpoint, config)
    examples = _examples(config)
    if config.modality == 'both':
        examples[PRESENT] = torch.ones(2, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch's own parts
        model = _exported(module, examples)
    if PRESENT in examples:
        _default_to_ones(model.graph, PRESENT)
    for key, text in texts.items():
        model.metadata_props.add(key=key, value=text)
    model.producer_name, model.producer_version = 'sartm', _version()
    write_file(path, model.SerializeToString())


def _exported(module: ExportedModel, examples: dict[str, Tensor]) -> Any:
    """The ONNX model of a fixed size."""
    program = torch.onnx.export(
        module,
        tuple(examples.values()),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=list(examples),
        output_names=OUTPUTS,
    )
    assert program is not None
    return program.model_proto


def _default_to_ones(graph: Any, name: str) -> None:
    """Let an input be left out: a constant of its name stands in for it."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ones(2, np.uint8), name))


def _check_path(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise SartmError(f'{path} is to be written; expected a name that ends in {suffix}')


def _prepare(checkpoint: str | Path, config: ExportConfig) -> tuple[ExportedModel, dict[str, str]]:
    """The module to be written, and the texts of its metadata."""
    loaded = checkpoints.load(checkpoint)
    values = {
        'model': to_dict(loaded.config),
        'labels': loaded.label_space.to_dict(),
        'card': loaded.card,
        'export': asdict(config),
    }
    texts = {'format': FORMAT, **{key: json.dumps(value) for key, value in values.items()}}
    return ExportedModel(checkpoints.build(loaded), config).eval(), texts


def _examples(config: ExportConfig) -> dict[str, Tensor]:
    sizes = config.sizes
    types = {'rgb': torch.uint8, 'thermal': getattr(torch, config.thermal_type)}
    return {
        name: torch.zeros((*size, 3) if name == 'rgb' else size, dtype=types[name])
        for name, size in sizes.items()
    }


def _version() -> str:
    try:
        return metadata.version('sartm_ros')
    except metadata.PackageNotFoundError:
        return ''
