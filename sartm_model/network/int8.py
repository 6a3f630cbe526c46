"""The encoder's large products in 8-bit integers, for CPUs that have instructions for it.

    y = s_x s_w (x_q - z) w_q + b

w_q is int8 with a scale s_w for each row of the weight, x_q uint8 with one scale s_x and zero z for
the whole input, of its smallest and largest value each time. What is small, or sums many pixels up,
stays in float32: fusion, heads, normalisation, attention.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from sartm_model.errors import SartmError

MIN_WIDTH = 64
"""Shorter sums are as fast in float32."""


class Int8Linear(nn.Module):
    """A `Linear` whose weight is rounded to 8 bits, and whose input each time.

    Args:
        linear: float32, on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        # Rows of zeros need a scale as well.
        scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12).double()
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            # That such tensors will go one day; the release of torch is pinned.
            warnings.filterwarnings('ignore', message='.*quantized tensor creation functions')
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = 'onednn'
        try:
            self._packed = torch.ops.quantized.linear_prepack(rounded, linear.bias)
        finally:
            torch.backends.quantized.engine = before

    def forward(self, x: Tensor) -> Tensor:
        """float32 `[..., d_in]` -> `[..., d_out]`."""
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, False)
        return y


def check_int8(device: torch.device) -> None:
    """Raise SartmError unless the device is a CPU that multiplies 8-bit integers exactly."""
    if device.type != 'cpu':
        raise SartmError(f'precision int8 is for the CPU, not {device}; use fp16 or bf16')
    able = torch.cpu.get_capabilities()
    # x86 processors before VNNI add pairs of products in 16 bits, which overflow.
    vnni = able.get('avx512_vnni') or able.get('avx_vnni')
    if not vnni or 'onednn' not in torch.backends.quantized.supported_engines:
        raise SartmError('precision int8: this processor has no VNNI instructions; use fp32')


def to_int8(encoder: nn.Module) -> None:
    """Replace the wide `Linear` layers of a `SplitEncoder` in place."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and child.in_features >= MIN_WIDTH:
                setattr(module, name, Int8Linear(child))
