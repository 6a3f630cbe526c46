"""Exported files use what TensorRT 10's ONNX parser supports.

No TensorRT is needed: the files are held against its published list (`docs/operators.md` of
onnx-tensorrt for TensorRT 10.15, read on 2026-11-26). That it does not refuse a file for another
reason, only TensorRT can tell.
"""

from __future__ import annotations

import pytest

pytest.importorskip('onnx', reason='needs onnx')
pytest.importorskip('onnxscript', reason='needs onnxscript')

import onnx
from onnx import TensorProto

from sartm_model.config import ModelConfig
from sartm_model.export.onnx_export import export_onnx
from sartm_model.inference.export_config import ExportConfig
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import build

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
ANY = NUMBERS | {TensorProto.BOOL}


def each(names: str, types: set[int]) -> dict[str, set[int]]:
    return dict.fromkeys(names.split(), types)


# The types that an operator computes with, for the operators that a network may need.
SUPPORTED = {
    **each(
        """BatchNormalization Ceil Clip Conv ConvTranspose Cos CumSum Einsum Erf Exp Floor Gemm
        GlobalAveragePool GridSample HardSigmoid HardSwish InstanceNormalization IsInf
        LayerNormalization Log MatMul MaxPool Resize Round Sigmoid Sin Softmax Softplus Sqrt
        Tanh""",
        FLOATS,
    ),
    **each(
        """Abs Add ArgMax ArgMin Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max
        Min Mod Mul Neg Pad Pow Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum Relu ScatterElements ScatterND Sign Sub Sum TopK""",
        NUMBERS,
    ),
    **each(
        """Concat Constant ConstantOfShape Expand Flatten Gather GatherElements GatherND Identity
        Reshape Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where""",
        ANY,
    ),
    **each('And Not Or Xor', {TensorProto.BOOL}),
    **each('Cast', ANY | {TensorProto.UINT8}),
}
MAX_TOPK = 3840
RESIZE_MODES = {b'nearest', b'linear'}
RESIZE_COORDINATES = {b'half_pixel', b'pytorch_half_pixel', b'asymmetric', b'align_corners'}


def faults(path) -> list[str]:
    """What TensorRT would refuse in a file."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    types.update({value.name: value.data_type for value in graph.initializer})
    found = [f'function {function.name}' for function in model.functions]
    for node in graph.node:
        what = f'{node.op_type} {node.name}'
        if node.domain or node.op_type not in SUPPORTED:
            found.append(what)
            continue
        for name in (*node.input, *node.output):
            # Some have a second type for positions or conditions, which any of these may be.
            if name and types[name] not in SUPPORTED[node.op_type] | ANY:
                found.append(f'{what}: {TensorProto.DataType.Name(types[name])}')
        if node.output and types[node.output[0]] not in SUPPORTED[node.op_type] | {
            TensorProto.BOOL
        }:
            found.append(f'{what} gives {TensorProto.DataType.Name(types[node.output[0]])}')
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        has_axes = node.op_type.startswith('Reduce') or node.op_type in ('Squeeze', 'Unsqueeze')
        if has_axes and len(node.input) > 1 and node.input[1] not in constants:
            found.append(f'{what}: its axes are computed')
        if node.op_type == 'Resize' and (
            values['mode'] not in RESIZE_MODES
            or values['coordinate_transformation_mode'] not in RESIZE_COORDINATES
            or values.get('antialias')
        ):
            found.append(f'{what}: {values}')
        if node.op_type == 'TopK' and (
            node.input[1] not in constants
            or constants[node.input[1]].item() >= MAX_TOPK
            or not values.get('sorted', 1)
        ):
            found.append(f'{what}: K')
        if node.op_type in ('LayerNormalization', 'MaxPool') and len(node.output) > 1:
            found.append(f'{what}: {len(node.output)} outputs')
        if node.op_type == 'MaxPool' and set(values.get('dilations', ())) - {1}:
            found.append(f'{what}: dilations')
    return found


def test_the_shipped_checkpoint(demo_onnx):
    assert faults(demo_onnx) == []


@pytest.mark.slow
def test_hiera_and_16_bit_counts(nano_checkpoint, tmp_path):
    config = ExportConfig(height=70, width=100, thermal_type='float32')
    export_onnx(nano_checkpoint, tmp_path / 'nano.onnx', config)
    assert faults(tmp_path / 'nano.onnx') == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'modalities'), [('segformer', ('thermal',)), ('segrgbx', ('rgb', 'thermal', 'event'))]
)
def test_mix_transformers(tmp_path, name, modalities):
    pytest.importorskip('transformers', reason='needs transformers')
    model = build(ModelConfig(name=name, size='b0', modalities=modalities), 9)
    checkpoints.save(tmp_path / 'network.safetensors', model, MFNET, {})
    config = ExportConfig(height=70, width=100, modalities=modalities)
    export_onnx(tmp_path / 'network.safetensors', tmp_path / 'network.onnx', config)
    assert faults(tmp_path / 'network.onnx') == []


def test_what_it_does_not_have_is_noticed(tmp_path):
    """An operator that is not in the list, and bytes where they are not allowed."""
    helper = onnx.helper
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, [4, 4])
    out = helper.make_tensor_value_info('out', TensorProto.UINT8, [4, 4])
    turned = helper.make_node('Transpose', ['image'], ['turned'], 'turn', perm=[1, 0])
    shifted = helper.make_node('BitwiseNot', ['turned'], ['out'], 'invert')
    graph = helper.make_graph([turned, shifted], 'small', [image], [out])
    onnx.save(helper.make_model(graph), tmp_path / 'x.onnx')
    assert faults(tmp_path / 'x.onnx') == [
        'Transpose turn: UINT8',
        'Transpose turn: UINT8',
        'Transpose turn gives UINT8',
        'BitwiseNot invert',
    ]
