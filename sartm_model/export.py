"""Writes a checkpoint as one file that other runtimes take: camera counts in, labels out.

`export_onnx` and `export_torchscript` write an `ExportedModel`. The metadata of the file says what
it takes: JSON texts `format`, `model`, `labels`, `card` and `export`.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model import checkpoint as checkpoints
from sartm_model.config import to_dict
from sartm_model.errors import SartmError
from sartm_model.exported_model import ExportConfig, ExportedModel
from sartm_model.files import write_file

FORMAT = 'sartm-export-1'
OPSET = 18
OUTPUTS = ['labels', 'confidence']
PRESENT = 'present'
"""The input of an ONNX file for both that tells which of them are there; may be left out."""
TRACED_SIZES = ((96, 160), (80, 112))  # of a file for any size: small, and no two alike


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
        model = _traced(module, examples) if config.dynamic else _exported(module, examples)
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


def _traced(module: ExportedModel, examples: dict[str, Tensor]) -> Any:
    """The ONNX model for any size.

    By torch's older exporter, which writes sizes as the trace has them. The newer one has to prove
    what holds of them, and the windows of Hiera are beyond it.
    """
    import onnx

    buffer = io.BytesIO()
    thermal = examples.get('thermal')
    if thermal is not None and thermal.dtype == torch.uint16:
        examples = {**examples, 'thermal': thermal.to(torch.int32)}  # see `_take_uint16`
    axes = {n: {0: f'{n}_height', 1: f'{n}_width'} for n in examples if n != PRESENT}
    axes |= dict.fromkeys(OUTPUTS, next(iter(axes.values())))
    torch.onnx.export(
        module,
        tuple(examples.values()),
        buffer,  # type: ignore[arg-type]  # which it takes
        dynamo=False,
        opset_version=OPSET,
        input_names=list(examples),
        output_names=OUTPUTS,
        dynamic_axes=axes,
    )
    model = onnx.load_from_string(buffer.getvalue())
    if thermal is not None and thermal.dtype == torch.uint16:
        _take_uint16(model.graph)
    return model


def _take_uint16(graph: Any) -> None:
    """Make thermal, which is int32, uint16: a type that the older exporter does not know."""
    from onnx import TensorProto, helper

    for node in graph.node:
        node.input[:] = ['thermal_int32' if name == 'thermal' else name for name in node.input]
    cast = helper.make_node('Cast', ['thermal'], ['thermal_int32'], to=TensorProto.INT32)
    graph.node.insert(0, cast)
    thermal = next(value for value in graph.input if value.name == 'thermal')
    thermal.type.tensor_type.elem_type = TensorProto.UINT16


def _default_to_ones(graph: Any, name: str) -> None:
    """Let an input be left out: a constant of its name stands in for it."""
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ones(2, np.uint8), name))


def export_torchscript(checkpoint: str | Path, path: Path, config: ExportConfig) -> None:
    """Write a checkpoint as a TorchScript file, for C++ with libtorch; metadata in `sartm.json`.

    The newer `.pt2` of `torch.export` is not offered: reading one may unpickle Python objects, and
    a pickle can run code.

    Raises:
        SartmError: the checkpoint cannot be used.
    """
    _check_path(path, '.pt')
    module, texts = _prepare(checkpoint, config)
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch advises torch.export; sizes are meant to be fixed
        examples = tuple(_examples(config).values())
        traced = torch.jit.trace(module, examples, check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={'sartm.json': json.dumps(texts)})
    write_file(path, buffer.getvalue())


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
    sizes = dict(zip(config.sizes, TRACED_SIZES, strict=False)) if config.dynamic else config.sizes
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
