"""Summarises a checkpoint: size, parameters and floating point operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sartm_model.config import to_dict
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.base import SegmentationModel


def describe(checkpoint: str | Path, height: int = 480, width: int = 640) -> dict[str, Any]:
    """Return what `sartm info` prints, as plain values.

    Args:
        checkpoint: a SARTM `.safetensors` file, or one of `checkpoint.SHIPPED`.
        height, width: size of the pair, in pixels, for which operations are counted.

    Raises:
        SartmError: the checkpoint cannot be used, or the size is not positive.
    """
    loaded = checkpoints.load(checkpoint)
    return {
        'file': str(loaded.path),
        'bytes': loaded.path.stat().st_size,
        'model': to_dict(loaded.config),
        'labels': loaded.label_space.to_dict(),
        'parameters': count_parameters(checkpoints.build(loaded, merged=False)),
        'flops': {
            'pair': count_flops(checkpoints.build(loaded).to('meta'), height, width),
            'height': height,
            'width': width,
        },
        'card': loaded.card,
    }


def count_parameters(model: SegmentationModel) -> dict[str, int]:
    """Count the parameters: `total`, `trainable`, and those of each part by its name.

    The parts of sartm begin with `encoder`, which contains its adapters.
    """
    parts = {name: _count(part.parameters()) for name, part in model.named_children()}
    return {
        'total': _count(model.parameters()),
        'trainable': _count(p for p in model.parameters() if p.requires_grad),
        **parts,
    }


def count_flops(
    model: SegmentationModel, height: int, width: int, modalities: Sequence[str] = ()
) -> int:
    """Count the floating point operations of one pair; a multiply-add counts as two.

    The images are those of `modalities`, or else of all modalities of the network.

    A network on the device 'meta' computes nothing, and is counted at once. Parts that are kept for
    a size are counted only if they have not been computed yet.

    Convolutions, linear layers and attention are counted. Element-wise operations, norms and
    resizing, a small part, are not.

    Raises:
        SartmError: the size is not positive.
    """
    if height < 1 or width < 1:
        raise SartmError(f'the size is {width}x{height} pixels; expected 1 or more each way')
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton where it is installed

    parameter = next(model.parameters())
    images = {
        name: parameter.new_zeros(1, MODALITIES[name].channels, height, width)
        for name in modalities or model.config.modalities
    }
    # Products in place are unknown to the counter.
    aten = torch.ops.aten
    in_place = dict.fromkeys((aten.addmm_, aten.baddbmm_), _product_flops)
    counter = FlopCounterMode(display=False, custom_mapping=in_place)
    # The counter does not know the fused attention kernel of a CPU.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model.segment(images)
    return counter.get_total_flops()


def _product_flops(
    total: Sequence[int], first: Sequence[int], second: Sequence[int], **_: Any
) -> int:
    """Return the operations of `total + first @ second` by the shapes of the three."""
    return 2 * math.prod(first) * second[-1]


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
