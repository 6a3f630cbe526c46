"""SegFormer: a Mix Transformer encoder and an all-MLP head, for the images of one modality.

E. Xie et al., 'SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers',
NeurIPS 2021. The encoder is that of the package `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.layers.mit import VARIANTS, build_mit
from sartm_model.models.layers.mit_weights import load_imagenet
from sartm_model.models.layers.mlp_head import InferenceHead, MlpHead


class Segformer(SegmentationModel):
    """SegFormer for one modality; an image of one channel is repeated three times.

    Args:
        config: size and modality.
        num_classes: K, the number of classes.

    Raises:
        SartmError: the size is none of `VARIANTS`, there is not one modality, or the package
            `transformers` is not installed.
    """

    SIZES = tuple(VARIANTS)
    HEADS: ClassVar = {'mlp': 'decode_head'}
    CHANNELS = (1, 3)
    INPUT_STRIDE = 32
    STAGES: ClassVar = {'encoder': 'encoder.stages.3'}
    ROW_PER_CLASS = ('decode_head.classifier.weight', 'decode_head.classifier.bias')
    LOGIT_LAYERS = (r'decode_head\.classifier',)

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        if len(config.modalities) != 1:
            raise SartmError(
                f'model.modalities is {list(config.modalities)}; segformer takes one, such as '
                '[thermal]'
            )
        variant = VARIANTS[config.size]
        self.encoder = build_mit(variant)
        self.decode_head: nn.Module = MlpHead(variant.widths, variant.head_width, num_classes)

    def encode(self, images: Mapping[str, Tensor], drop_mask: Tensor | None) -> list[Tensor]:
        """Return the maps of the four stages; the one modality is never missing."""
        [x] = images.values()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        maps = []
        for stage in self.encoder.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def load_pretrained(self, setting: str, source: str) -> None:
        """Start the encoder from ImageNet's weights."""
        if setting == 'imagenet_weights':
            load_imagenet(self.encoder, self.config.size, source)
        else:
            super().load_pretrained(setting, source)

    def optimize_for_inference(self) -> None:
        """Multiply the layers of the head, see `InferenceHead`."""
        assert isinstance(self.decode_head, MlpHead)
        self.decode_head = InferenceHead(self.decode_head)
