"""Mix Transformer (MiT), SegFormer's encoder, from the package `transformers`.

E. Xie et al., 'SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers',
NeurIPS 2021.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, NamedTuple

from torch import nn

from sartm_model.errors import SartmError
from sartm_model.utils.torchvision_patch import patch_torchvision_ops


class Variant(NamedTuple):
    """What differs between the sizes, table 6 of the paper.

    Attributes:
        widths: channels of the four stages, of strides 4, 8, 16 and 32.
        depths: number of blocks of each stage.
        head_width: channels of the head.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head_width: int


_NARROW, _WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
VARIANTS = {
    'b0': Variant(_NARROW, (2, 2, 2, 2), 256),
    'b1': Variant(_WIDE, (2, 2, 2, 2), 256),
    'b2': Variant(_WIDE, (3, 4, 6, 3), 768),
    'b3': Variant(_WIDE, (3, 4, 18, 3), 768),
    'b4': Variant(_WIDE, (3, 8, 27, 3), 768),
    'b5': Variant(_WIDE, (3, 6, 40, 3), 768),
}


def build_mit(variant: Variant) -> Any:
    """Return the encoder of a size, with random weights.

    Those of the convolutions have the deviation sqrt(2 / fan_out) of SegFormer's authors. That of
    `transformers` is 0.02, with which a depthwise 3x3 convolution lets almost nothing through, so
    that a training without ImageNet's weights starts slowly.

    Raises:
        SartmError: the package `transformers` is not installed.
    """
    patch_torchvision_ops()
    try:
        from transformers.models.segformer.configuration_segformer import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerModel
    except ImportError as error:
        raise SartmError(
            f"SegFormer's encoder needs the package transformers ({error}); it is in "
            'requirements/model.txt'
        ) from error
    encoder = SegformerModel(SegformerConfig(hidden_sizes=variant.widths, depths=variant.depths))
    for conv in encoder.modules():
        if isinstance(conv, nn.Conv2d):
            height, width = conv.kernel_size
            fan_out = height * width * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=sqrt(2 / fan_out))
    return encoder
