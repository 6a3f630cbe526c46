"""Writes a checkpoint as an ONNX file, with what it takes in the file's metadata."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.config import to_dict
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportedModel
from sartm_model.inference.export_config import FORMAT, OUTPUTS, PRESENT, ExportConfig
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.utils.files import write_file
from sartm_model.utils.versions import version_of

OPSET = 18
IR_VERSION = 8
"""The oldest that has the opset: ONNX 1.13, which ONNX Runtime implements from 1.14 on. A runtime
refuses a file of a newer version than it knows, whatever is in it."""


def export_onnx(checkpoint: str | Path, path: Path, config: ExportConfig) -> None:
    """Write a checkpoint as an ONNX file.

    Args:
        checkpoint: a SARTM `.safetensors` file, or one of `checkpoint.SHIPPED`.
        path: ends in `.onnx`.
        config: the images that the file takes.

    Raises:
        SartmError: the name has another ending, a package is missing, or the checkpoint cannot be
            used or has other modalities.
    """
    if path.suffix != '.onnx':
        raise SartmError(f'{path} is to be written; expected a name that ends in .onnx')
    try:
        import onnxscript  # noqa: F401  which torch.onnx needs
    except ModuleNotFoundError as error:
        raise SartmError(
            f'the export to ONNX needs {error.name}; pip install onnx onnxscript onnxruntime'
        ) from None
    loaded = checkpoints.load(checkpoint)
    if config.modalities != tuple(loaded.config.modalities):
        raise SartmError(
            f'export: modalities are {", ".join(config.modalities)}; checkpoint {checkpoint} takes '
            f'{", ".join(loaded.config.modalities)}'
        )
    module = ExportedModel(checkpoints.build(loaded), config).eval()
    inputs = _example_inputs(config)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch's own parts
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    _remove_notes(model.graph)
    if PRESENT in inputs:
        _default_to_ones(model.graph, PRESENT, len(config.sizes))
    values = {
        'model': to_dict(loaded.config),
        'labels': loaded.label_space.to_dict(),
        'card': loaded.card,
        'export': asdict(config),
    }
    for key, text in {'format': FORMAT, **{k: json.dumps(v) for k, v in values.items()}}.items():
        model.metadata_props.add(key=key, value=text)
    model.producer_name, model.producer_version = 'sartm', version_of('sartm_ros')
    write_file(path, model.SerializeToString())


def _example_inputs(config: ExportConfig) -> dict[str, Tensor]:
    """Return blank inputs of the module by their names in the file."""
    inputs = {
        name: torch.from_numpy(MODALITIES[name].blank(*size, config.dtype(name)))
        for name, size in config.sizes.items()
    }
    if len(inputs) > 1:
        inputs[PRESENT] = torch.ones(len(inputs), dtype=torch.uint8)
    return inputs


def _remove_notes(graph: Any) -> None:
    """Remove the exporter's notes on where each part comes from, a field newer than the version."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField('metadata_props')


def _default_to_ones(graph: Any, name: str, count: int) -> None:
    """Let an input of `count` bytes be left out: an initializer of its name is its default."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ones(count, np.uint8), name))
