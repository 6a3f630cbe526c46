"""The SARTM network: encoder, fusion and two heads, for two modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import SAM2_SIZES, ModelConfig
from sartm_model.data.transforms import resize
from sartm_model.errors import SartmError
from sartm_model.models.logits import class_probabilities, upsample_logits
from sartm_model.models.sartm.auxiliary_head import AuxiliaryHead, InferenceAuxiliaryHead
from sartm_model.models.sartm.efficientnet import EfficientNetEncoder
from sartm_model.models.sartm.encoder import STRIDE, Encoder, Pyramid
from sartm_model.models.sartm.fusion import CrossModalFusion
from sartm_model.models.sartm.inference_fusion import InferenceFusion
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder
from sartm_model.utils.parallel import ParallelRunner, Runner

HEADS = {'mean': ('mask', 'auxiliary'), 'mask': ('mask',), 'auxiliary': ('auxiliary',)}
"""For each value of `ModelConfig.prediction`, the heads whose probabilities are averaged."""


class SartmOutput(NamedTuple):
    """The output of `Sartm.forward` for K classes and images of H x W pixels.

    Attributes:
        mask_logits: logits of head 1, the mask decoder, `[B, K, H, W]`.
        auxiliary_logits: logits of head 2, the auxiliary head, `[B, K, H, W]`.
        fused: the fused maps of the images, which are padded to multiples of 32.
    """

    mask_logits: Tensor
    auxiliary_logits: Tensor
    fused: Pyramid


class Sartm(nn.Module):
    """The network of the paper.

    Args:
        config: size, modalities, LoRA rank, prediction.
        num_classes: K, the number of classes.
        merged: build the inference form, in which the adapters are part of the encoder's weights;
            `lora.merge_state` computes them.
    """

    def __init__(self, config: ModelConfig, num_classes: int, *, merged: bool = False) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.merged = merged
        encoder = EfficientNetEncoder if config.size == 'lite' else Encoder
        self.encoder = encoder(config, merged=merged)
        self.runner: Runner | None = None  # see `enable_parallel`
        channels = self.encoder.channels
        widths = (channels, channels // 4, channels // 8)  # of the levels of a pyramid
        self.fusions = nn.ModuleList(
            CrossModalFusion(width, heads) for width, heads in zip(widths, (4, 2, 1), strict=True)
        )
        self.missing_modality_embedding = nn.ParameterList(
            torch.randn(len(config.modalities), width) * 0.02 for width in widths
        )
        mlp_dim = {'nano': 256, 'lite': 512}.get(config.size, 2048)
        self.mask_decoder = ClassMaskDecoder(channels, num_classes, mlp_dim)
        self.auxiliary_head: nn.Module = AuxiliaryHead(channels, num_classes)
        self._freeze()

    def _freeze(self) -> None:
        """Freeze the weights that come from SAM2, but not the adapters.

        Other sizes, which have no weights from SAM2, are trained as a whole. peft has frozen all
        but the adapters of the trunk.
        """
        from_sam2 = nn.ModuleList([self.encoder, self.mask_decoder.masks.transformer])
        is_sam2 = self.config.size in SAM2_SIZES
        for name, parameter in from_sam2.named_parameters():
            parameter.requires_grad_(not is_sam2 or 'lora_' in name)
        # SAM2 also predicts the quality of each mask, which no loss uses.
        self.mask_decoder.masks.iou_prediction_head.requires_grad_(False)

    def optimize_for_inference(self) -> None:
        """Replace layers by faster ones that compute the same from products of their weights.

        Call it once, on a merged model with its weights loaded. The names of the weights change.
        """
        if isinstance(self.encoder, Encoder):
            self.encoder.fuse_1x1_convs()
        self.fusions = nn.ModuleList(map(InferenceFusion, list[Any](self.fusions)))
        assert isinstance(self.auxiliary_head, AuxiliaryHead)
        self.auxiliary_head = InferenceAuxiliaryHead(self.auxiliary_head)

    def forward(
        self,
        images: Mapping[str, Tensor],
        drop_mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> SartmOutput:
        """Segment a batch of aligned images.

        Args:
            images: modality name -> normalised `[B, 3, H, W]` or `[B, 1, H, W]` of any H and W. It
                holds one or more of the configured modalities.
            drop_mask: bool `[B, 2]`, true where a modality that is given is treated as missing, in
                the order of `config.modalities`, for modality dropout in training.
            size: `(H, W)` of the logits; the size of the images if omitted.

        Raises:
            SartmError: no image is given, their sizes differ, or the network lacks a modality.
        """
        input_size = self._common_size(images)
        fused = self._fused_maps(images, drop_mask)
        return SartmOutput(
            mask_logits=upsample_logits(self.mask_decoder(fused), input_size, size or input_size),
            auxiliary_logits=upsample_logits(
                self.auxiliary_head(fused), input_size, size or input_size
            ),
            fused=fused,
        )

    def _fused_maps(self, images: Mapping[str, Tensor], drop_mask: Tensor | None) -> Pyramid:
        """Pad the images to multiples of 32, encode and fuse them; arguments as for `forward`."""
        pyramids = self._encode({name: _pad(_to_rgb(x)) for name, x in images.items()})

        def fuse(level: int) -> Tensor:
            return self._fuse_level(level, pyramids, drop_mask)

        if self.runner is None:
            return Pyramid(*(fuse(level) for level in range(3)))
        # Level 2, of the highest resolution, takes about as long as the two others.
        (sfm, ifp), ffp = self.runner(lambda: (fuse(0), fuse(1)), lambda: fuse(2))
        return Pyramid(sfm, ifp, ffp)

    def _encode(self, images: dict[str, Tensor]) -> dict[str, Pyramid]:
        """Encode all modalities in one batch, or each by itself where a runner runs two at once."""
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

    def resize_input(self, image: Tensor) -> Tensor:
        """Resize an image `[B, C, H, W]` by `config.input_scale`."""
        return resize(image, self.scaled_size((image.shape[-2], image.shape[-1])))

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the `(height, width)` to which `resize_input` resizes an image of `size`."""
        height, width = (max(1, round(side * self.config.input_scale)) for side in size)
        return height, width

    def segment(self, images: Mapping[str, Tensor]) -> Tensor:
        """Compute class probabilities `[B, K, H, W]` at the size of the images.

        Unlike `forward`, this resizes the images by `config.input_scale` first. Arguments and
        errors are the same.
        """
        resized = {name: self.resize_input(image) for name, image in images.items()}
        return self.probabilities(self(resized, size=self._common_size(images)))

    def forward_logits(
        self, images: Mapping[str, Tensor], drop_mask: Tensor | None = None
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """Compute the logits of one frame, from which inference derives the labels.

        Args:
            images: as for `forward`, of a batch of one, already resized by `resize_input`.
            drop_mask: as for `forward`.

        Returns:
            The logits `[K, h, w]` of each head that `config.prediction` names, h and w a quarter of
            the padded input's, and `(height, width)` of the input without its padding.
        """
        input_size = self._common_size(images)
        fused = self._fused_maps(images, drop_mask)
        heads = {'mask': self.mask_decoder, 'auxiliary': self.auxiliary_head}
        chosen = [heads[name] for name in HEADS[self.config.prediction]]
        if self.runner is not None and len(chosen) == 2:
            both = self.runner(lambda: chosen[0](fused)[0], lambda: chosen[1](fused)[0])
            return list(both), input_size
        return [head(fused)[0] for head in chosen], input_size

    def _common_size(self, images: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the `(height, width)` of all images; errors as for `forward`."""
        sizes = {(x.shape[-2], x.shape[-1]) for x in images.values()}
        if not sizes:
            raise SartmError('no image: the network needs at least one modality')
        if len(sizes) > 1:
            raise SartmError(
                f'the modalities differ in size: {sorted(sizes)}; expected equal sizes'
            )
        if unknown := sorted(images.keys() - set(self.config.modalities)):
            raise SartmError(
                f'the network has no modality {", ".join(unknown)}; expected '
                f'{" or ".join(self.config.modalities)}'
            )
        return sizes.pop()

    def enable_parallel(self, runner: Runner | None = None) -> None:
        """From now on run independent parts of the network at once, two at a time.

        These are the encodings of the two modalities, the fusions and the two heads. The operations
        of a small network are too short to be shared by all threads, and too small to fill a GPU.
        Only for inference, and by one calling thread at a time.

        Args:
            runner: runs two functions at once, such as `TwoStreams` on a GPU; `ParallelRunner`, for
                a CPU, if omitted.
        """
        self.requires_grad_(False)
        self.runner = runner or ParallelRunner()

    def probabilities(self, output: SartmOutput) -> Tensor:
        """Average the class probabilities of the heads that `config.prediction` names.

        Returns:
            float32 `[B, K, H, W]`.
        """
        logits = {'mask': output.mask_logits, 'auxiliary': output.auxiliary_logits}
        heads = [logits[name] for name in HEADS[self.config.prediction]]
        return class_probabilities(torch.stack(heads))


def _to_rgb(x: Tensor) -> Tensor:
    """Repeat the channel of `[B, 1, H, W]` three times, because SAM2 expects RGB."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def _pad(x: Tensor) -> Tensor:
    """Pad bottom and right to multiples of 32 with zeros, the mean of a normalised image."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))
