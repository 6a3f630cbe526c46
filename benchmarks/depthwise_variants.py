"""Other forms of size `lite`'s depthwise convolutions, for the report of a GPU.

`ConvPerModality.pad_kernel` makes 4x4 and 6x6 of those of stride 2. On a CPU this pays; a GPU may
have fast code for 3x3 and 5x5 alone, or for channels first in memory alone. All forms compute the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from sartm_model.inference.predictor import Predictor
from sartm_model.models.base import SegmentationModel
from sartm_model.models.sartm.efficientnet import ConvPerModality


def depthwise_variants(
    checkpoint: str | Path, device: str, precision: str
) -> dict[str, Callable[[], Predictor]]:
    """Return the builders of predictors with the engine 'graph', by name."""

    def variant(*changes: Callable[[SegmentationModel], None]) -> Callable[[], Predictor]:
        def build() -> Predictor:
            predictor = Predictor(checkpoint, device=device, precision=precision, engine='graph')
            for change in changes:
                change(predictor.pipeline.model)
            return predictor

        return build

    return {
        'odd kernels': variant(use_odd_kernels),
        'depthwise channels first': variant(use_channels_first),
        'odd kernels, depthwise channels first': variant(use_odd_kernels, use_channels_first),
    }


def use_odd_kernels(model: SegmentationModel) -> None:
    """Undo `ConvPerModality.pad_kernel`: kernels of the trained size, and padded copies of maps."""
    for conv in _depthwise(model):
        side = conv.kernel_size[0]
        if side % 2 == 0:
            conv.kernel_size, conv.padding = (side - 1, side - 1), (0, 0)
            conv.weight = nn.Parameter(conv.weight.detach()[:, :, 1:, 1:].contiguous())


def use_channels_first(model: SegmentationModel) -> None:
    """Give each depthwise convolution its input with the pixels of a channel beside each other."""
    for conv in _depthwise(model):
        conv.weight = nn.Parameter(conv.weight.detach().contiguous())
        conv.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


def _depthwise(model: SegmentationModel) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, ConvPerModality):
            yield from (conv for conv in list[Any](module.convs.values()) if conv.groups > 1)
