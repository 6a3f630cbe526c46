"""SegFormer's all-MLP head, in a form for training and one for inference.

The paper projects the map x_i of each stage to one width (L_i), upsamples the results to stride 4,
concatenates them and mixes their channels (M, a 1x1 convolution without bias). Upsampling commutes
with 1x1 convolutions, so the same is

    M [up(L_1 x_1), ..., up(L_4 x_4)] = up(M_1 L_1 x_1) + ... + up(M_4 L_4 x_4)

where each stage is mixed at its own stride, with far fewer operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.models.layers.folding import make_conv_1x1, scale_and_shift

DROPOUT = 0.1
INIT_STD = 0.02


class MlpHead(nn.Module):
    """Turns the maps of the four stages into logits.

    Args:
        widths: channels of the maps.
        width: channels that they are projected to.
        num_classes: K.
    """

    def __init__(self, widths: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(d_in, width, 1) for d_in in widths)
        self.mixers = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in widths)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits `[B, K, H/4, W/4]` of the maps of strides 4, 8, 16 and 32."""
        mixed = (
            mixer(projection(x))
            for mixer, projection, x in zip(self.mixers, self.projections, maps, strict=True)
        )
        return self.classifier(self.dropout(self.norm(_sum_upsampled(mixed)).relu()))


class InferenceHead(nn.Module):
    """Computes what an `MlpHead` computes, with the layers of each stage and the norm in one.

    The products of the weights are computed in float64.
    """

    def __init__(self, head: MlpHead) -> None:
        super().__init__()
        scale, shift = scale_and_shift(head.norm)
        self.projections = nn.ModuleList()
        for projection, mixer in zip(head.projections, head.mixers, strict=True):
            weight, bias = (parameter.double() for parameter in projection.parameters())
            mix = scale[:, None] * next(mixer.parameters()).double()[..., 0, 0]
            shift_of_one = mix @ bias + shift / len(head.projections)
            self.projections.append(make_conv_1x1(mix @ weight[..., 0, 0], shift_of_one))
        self.classifier = head.classifier
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits, as `MlpHead.forward`."""
        mixed = (layer(x) for layer, x in zip(self.projections, maps, strict=True))
        return self.classifier(_sum_upsampled(mixed).relu())


def _sum_upsampled(maps: Iterable[Tensor]) -> Tensor:
    """Return the sum of the maps, upsampled to the size of the first, bilinear."""
    total, *others = maps
    for x in others:
        total = total + F.interpolate(x, size=total.shape[-2:], mode='bilinear')
    return total
