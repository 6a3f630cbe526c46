"""The SARTM network: encoder, fusion and two heads, for two modalities."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sartm_model.config import SAM2_SIZES, SIZES, ModelConfig
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.layers.fusion import CrossModalFusion
from sartm_model.models.sartm import efficientnet, lora
from sartm_model.models.sartm.auxiliary_head import AuxiliaryHead, InferenceAuxiliaryHead
from sartm_model.models.sartm.efficientnet import ConvPerModality, EfficientNetEncoder
from sartm_model.models.sartm.encoder import STRIDE, Encoder, Pyramid
from sartm_model.models.sartm.imagenet_weights import load_imagenet
from sartm_model.models.sartm.inference_fusion import InferenceFusion
from sartm_model.models.sartm.inference_mask_decoder import InferenceMaskDecoder
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder
from sartm_model.models.sartm.sam2_weights import load_sam2
from sartm_model.models.state_dict import load_strictly


class Sartm(SegmentationModel):
    """The network of the paper.

    Args:
        config: size, modalities, LoRA rank, prediction.
        num_classes: K, the number of classes.
        merged: build the inference form, in which the adapters are part of the encoder's weights;
            `inference_form` computes them.

    Raises:
        SartmError: the size is none of `SIZES`, or there are not two modalities.
    """

    SIZES = SIZES
    HEADS: ClassVar = {'mask': 'mask_decoder', 'auxiliary': 'auxiliary_head'}
    CHANNELS = (1, 3)
    INPUT_STRIDE = STRIDE
    STAGES: ClassVar = {'encoder': 'encoder', 'fusion': 'fusions.2'}
    ROW_PER_CLASS = (
        'mask_decoder.masks.mask_tokens.weight',
        'mask_decoder.masks.iou_prediction_head.layers.2.weight',
        'mask_decoder.masks.iou_prediction_head.layers.2.bias',
        'auxiliary_head.classifier.weight',
        'auxiliary_head.classifier.bias',
    )
    MODULE_PER_CLASS = ('mask_decoder.masks.output_hypernetworks_mlps',)  # the MLPs of eq. 9
    LOGIT_LAYERS = (
        r'mask_decoder\.masks\.output_hypernetworks_mlps\.\d+\.layers\.2',
        r'auxiliary_head\.classifier',
    )

    def __init__(self, config: ModelConfig, num_classes: int, *, merged: bool = False) -> None:
        super().__init__(config, num_classes)
        if len(config.modalities) != 2:
            raise SartmError(f'model.modalities is {list(config.modalities)}; sartm fuses two')
        encoder = EfficientNetEncoder if config.size == 'lite' else Encoder
        self.encoder = encoder(config, merged=merged)
        channels = self.encoder.channels
        self.semantic_channels = channels
        widths = (channels, channels // 4, channels // 8)  # of the levels of a pyramid
        self.fusions = nn.ModuleList(
            CrossModalFusion(width, heads) for width, heads in zip(widths, (4, 2, 1), strict=True)
        )
        self.missing_modality_embedding = nn.ParameterList(
            torch.randn(len(config.modalities), width) * 0.02 for width in widths
        )
        mlp_dim = {'nano': 256, 'lite': 512}.get(config.size, 2048)
        self.mask_decoder: Any = ClassMaskDecoder(channels, num_classes, mlp_dim)
        self.auxiliary_head: nn.Module = AuxiliaryHead(channels, num_classes)
        self._freeze()

    def _freeze(self) -> None:
        """Freeze SAM2's encoder and two-way transformer, but not the adapters.

        What else starts from SAM2, in the mask decoder, is trained. Sizes without weights from SAM2
        are trained as a whole: this thaws what `inject_adapters` has frozen.
        """
        frozen_in_sam2 = nn.ModuleList([self.encoder, self.mask_decoder.masks.transformer])
        is_sam2 = self.config.size in SAM2_SIZES
        for name, parameter in frozen_in_sam2.named_parameters():
            parameter.requires_grad_(not is_sam2 or 'lora_' in name)
        # SAM2 also predicts the quality of each mask, which no loss uses.
        self.mask_decoder.masks.iou_prediction_head.requires_grad_(False)

    def optimize_for_inference(self) -> None:
        """Replace layers by faster ones that compute the same from products of their weights."""
        self.encoder.optimize_for_inference()
        self.fusions = nn.ModuleList(map(InferenceFusion, list[Any](self.fusions)))
        self.mask_decoder = InferenceMaskDecoder(self.mask_decoder)
        assert isinstance(self.auxiliary_head, AuxiliaryHead)
        self.auxiliary_head = InferenceAuxiliaryHead(self.auxiliary_head)

    def optimize_for_cpu(self) -> None:
        """Avoid padded copies of maps, see `ConvPerModality.pad_kernel`."""
        for module in self.encoder.modules():
            if isinstance(module, ConvPerModality):
                module.pad_kernel()

    def encode(self, images: Mapping[str, Tensor], drop_mask: Tensor | None) -> Pyramid:
        """Encode the images and fuse their maps."""
        pyramids = self._encode_all({name: _to_rgb(image) for name, image in images.items()})

        def fuse(level: int) -> Tensor:
            return self._fuse_level(level, pyramids, drop_mask)

        levels = [partial(fuse, level) for level in range(3)]
        if self.runner is None:
            return Pyramid(*(fuse_level() for fuse_level in levels))
        return Pyramid(*self.runner(*levels))

    def semantic_map(self, features: Pyramid) -> Tensor:
        """Return the fused semantic feature map."""
        return features.sfm

    def load_pretrained(self, setting: str, source: str) -> None:
        """Start encoder and mask decoder from SAM2's weights, or size lite from ImageNet's."""
        if setting == 'sam2_weights':
            load_sam2(self, Path(source))
        elif setting == 'imagenet_weights':
            load_imagenet(self, source)
        else:
            super().load_pretrained(setting, source)

    @classmethod
    def inference_form(
        cls, config: ModelConfig, num_classes: int, state: Mapping[str, Tensor], source: str
    ) -> Sartm:
        """Merge the adapters into the encoder's weights."""
        merge_state = efficientnet.merge_state if config.size == 'lite' else lora.merge_state
        try:
            merged_state = merge_state(state, config.modalities)
        except KeyError as error:
            raise SartmError(f'{source} lacks the weight {error}') from None
        model = cls(config, num_classes, merged=True)
        load_strictly(model, merged_state, source)
        return model

    def to_precision(self, dtype: torch.dtype) -> Sartm:
        """Convert the weights in place, but for those that need float32; return the network."""
        # It multiplies coordinates with random frequencies: half precision would blur positions.
        in_float32 = [self.mask_decoder.position]
        for fusion in self.fusions:
            if isinstance(fusion, InferenceFusion):
                in_float32.append(fusion.context)  # its sums over all pixels exceed half precision
        states = [copy.deepcopy(module.state_dict()) for module in in_float32]
        self.to(dtype)
        for module, state in zip(in_float32, states, strict=True):
            module.float().load_state_dict(state)
        return self

    def _encode_all(self, images: dict[str, Tensor]) -> dict[str, Pyramid]:
        """Encode all modalities in one batch, or with a runner both in parallel."""
        if self.runner is None or len(images) == 1:
            return self.encoder(images)
        first, second = ({name: image} for name, image in images.items())
        one, other = self.runner(lambda: self.encoder(first), lambda: self.encoder(second))
        return {**one, **other}

    def _fuse_level(
        self, level: int, pyramids: dict[str, Pyramid], drop_mask: Tensor | None
    ) -> Tensor:
        """Fuse a level of the pyramids; a learned vector replaces the map of a missing modality."""
        some_map = next(iter(pyramids.values()))[level]  # for shape and dtype
        maps = []
        for index, name in enumerate(self.config.modalities):
            embedding = self.missing_modality_embedding[level][index][None, :, None, None]
            if name not in pyramids:
                maps.append(embedding.to(some_map.dtype).expand_as(some_map))
            elif drop_mask is None:
                maps.append(pyramids[name][level])
            else:
                is_dropped = drop_mask[:, index, None, None, None]
                maps.append(torch.where(is_dropped, embedding, pyramids[name][level]))
        return self.fusions[level](*maps)


def _to_rgb(x: Tensor) -> Tensor:
    """Repeat the channel of `[B, 1, H, W]` three times, because SAM2 expects RGB."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
