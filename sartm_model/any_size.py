"""Forms of the network's parts whose trace holds for images of any size.

While torch traces, `x.shape` gives tensors, and what is computed of them becomes a part of the
graph. Lost is what Python decides by them: an `if`, a number. SAM2's blocks pad only where a size
asks for it; here padding is always added and always cut off, if of no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock, do_pool
from torch import Tensor, nn

from sartm_model.network.encoder import Encoder, Pyramid

Side = Any
"""A height or a width: an int, or while torch traces a tensor; torch's own types know ints only."""


class AnySizeEncoder(nn.Module):
    """A merged `Encoder` with nothing kept from one size to the next; it shares the weights."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """As of `Encoder`."""
        encoder, trunk = self.encoder, self.encoder.trunk
        encoder.route.modalities = tuple(images)
        x = trunk.patch_embed(torch.cat(tuple(images.values())))  # [M, h, w, C]
        x = x + self._position(x.shape[1], x.shape[2]).to(x.dtype)
        stages = []
        for index, block in enumerate(trunk.blocks):
            x = _block(block, x)
            if index in trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        levels = encoder._pyramid(stages)
        return {
            name: Pyramid(*(level[index : index + 1] for level in levels))
            for index, name in enumerate(images)
        }

    def _position(self, height: Side, width: Side) -> Tensor:
        """Hiera's position embedding `[1, h, w, C]`, in float32; h and w multiples of its window.

        In half precision few runtimes know the bicubic.
        """
        trunk = self.encoder.trunk
        window = trunk.pos_embed_window.float()
        wide = F.interpolate(trunk.pos_embed.float(), size=(height, width), mode='bicubic')
        tiles = (height // window.shape[2], width // window.shape[3])
        return (wide + window.tile(tiles)).permute(0, 2, 3, 1)


def _block(block: MultiScaleBlock, x: Tensor) -> Tensor:
    """A block of Hiera: attention within windows (or everywhere), then the MLP.

    Args:
        block: its weights and its window; the first of a stage halves height and width.
        x: `[M, h, w, C]`.
    """
    shortcut, x = x, block.norm1(x)
    if block.dim != block.dim_out:
        shortcut = do_pool(block.proj(x), block.pool)
    height, width, window = x.shape[1], x.shape[2], block.window_size
    if window:
        rows, columns = parts(height, window), parts(width, window)
        x = F.pad(x, (0, 0, 0, columns * window - width, 0, rows * window - height))
        x = x.reshape(-1, rows, window, columns, window, block.dim)
        x = x.transpose(2, 3).reshape(-1, window, window, block.dim)
    x = block.attn(x)
    if window:
        if block.q_stride:
            window //= block.q_stride[0]
        x = x.reshape(-1, rows, columns, window, window, block.dim_out)
        x = x.transpose(2, 3).reshape(-1, rows * window, columns * window, block.dim_out)
        x = x[:, : shortcut.shape[1], : shortcut.shape[2]]
    x = shortcut + x
    return x + block.mlp(block.norm2(x))


def parts(length: Side, part: int) -> Side:
    """How many parts cover a length."""
    return (length + part - 1) // part


def shrunk(side: Side, scale: float) -> Side:
    """A side times a scale, rounded, of two as near the even one; at least 1."""
    if isinstance(side, Tensor):
        return (side * scale).round().clamp_min(1).to(torch.int64)
    return max(1, round(side * scale))


def enlarge(x: Tensor, factors: tuple[Any, Any]) -> Tensor:
    """Bilinear by factors of the rows and the columns, which a trace keeps as tensors."""
    if not isinstance(factors[0], Tensor):
        return F.interpolate(x, scale_factor=factors, mode='bilinear')
    both = torch.stack(factors)  # float32 [2]
    return _Resize.apply(x, both) if torch.onnx.is_in_onnx_export() else _enlarge(x, both)


@torch.jit.script_if_tracing
def _enlarge(x: Tensor, factors: Tensor) -> Tensor:
    rows, columns = float(factors[0]), float(factors[1])
    return F.interpolate(x, scale_factor=[rows, columns], mode='bilinear')


class _Resize(torch.autograd.Function):
    """`_enlarge` for ONNX: the exporter takes factors that are numbers only, its Resize tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=factors.tolist(), mode='bilinear')

    @staticmethod
    def symbolic(g: Any, x: Any, factors: Any) -> Any:
        nothing = g.op('Constant', value_t=torch.ones(0))
        scales = g.op('Concat', g.op('Constant', value_t=torch.ones(2)), factors, axis_i=0)
        return g.op(
            'Resize',
            *(x, nothing, scales),
            mode_s='linear',
            coordinate_transformation_mode_s='half_pixel',
        )
