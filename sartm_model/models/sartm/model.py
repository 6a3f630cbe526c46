"""SARTM: two modalities in, two heads' logits out."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.data.transforms import resize
from sartm_model.errors import SartmError
from sartm_model.models.logits import class_probabilities, upsample_logits
from sartm_model.models.sartm.auxiliary_head import AuxiliaryHead
from sartm_model.models.sartm.encoder import STRIDE, Encoder, Pyramid
from sartm_model.models.sartm.fusion import CrossModalFusion
from sartm_model.models.sartm.mask_decoder import ClassMaskDecoder
from sartm_model.utils.parallel import ParallelRunner, Runner

HEADS = {'mean': ('mask', 'auxiliary'), 'mask': ('mask',), 'auxiliary': ('auxiliary',)}
"""Whose probabilities a prediction is the mean of."""


class SartmOutput(NamedTuple):
    """What a forward pass gives; K classes, H x W the size of the input.

    Attributes:
        mask_logits: head 1, the mask decoder, `[B, K, H, W]`.
        auxiliary_logits: head 2, the FPN head, `[B, K, H, W]`.
        fused: the fused maps of the input padded to a multiple of 32.
    """

    mask_logits: Tensor
    auxiliary_logits: Tensor
    fused: Pyramid


class Sartm(nn.Module):
    """The network of the paper, for two modalities named by the configuration.

    The second modality is called thermal throughout, after the paper; nothing in here depends on
    what it is.

    Args:
        config: size, modalities, LoRA rank, prediction.
        num_classes: K.
        merged: build the inference form, whose adapters are part of the encoder's weights. Its
            weights come from `lora.merge_state`.
    """

    def __init__(self, config: ModelConfig, num_classes: int, *, merged: bool = False) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.merged = merged
        self.encoder = Encoder(config, merged=merged)
        self.runner: Runner | None = None  # see `enable_parallel`
        channels = self.encoder.channels
        widths = (channels, channels // 4, channels // 8)  # of a pyramid's levels
        self.fusions = nn.ModuleList(
            CrossModalFusion(width, heads) for width, heads in zip(widths, (4, 2, 1), strict=True)
        )
        self.missing_modality_embedding = nn.ParameterList(
            torch.randn(len(config.modalities), width) * 0.02 for width in widths
        )
        mlp_dim = 256 if config.size == 'nano' else 2048
        self.mask_decoder = ClassMaskDecoder(channels, num_classes, mlp_dim)
        self.auxiliary_head = AuxiliaryHead(channels, num_classes)
        self._freeze()

    def _freeze(self) -> None:
        """Freeze what the paper keeps from SAM2; its adapters stay trainable.

        `nano` has no SAM2 weights to keep, so all of it is trained.
        """
        from_sam2 = nn.ModuleList([self.encoder, self.mask_decoder.masks.transformer])
        keep = self.config.size != 'nano'
        for name, parameter in from_sam2.named_parameters():
            parameter.requires_grad_(not keep or 'lora_' in name)
        # SAM2 predicts each mask's quality beside the mask; nothing here is trained on it.
        self.mask_decoder.masks.iou_prediction_head.requires_grad_(False)

    def forward(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        drop_mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> SartmOutput:
        """Segment a batch of aligned pairs.

        Args:
            rgb: normalised `[B, 3, H, W]`, any H and W; None where there is no RGB image.
            thermal: normalised `[B, 1, H, W]` or `[B, 3, H, W]`, likewise.
            drop_mask: bool `[B, 2]`, true where a modality that was given is to be treated as
                missing (modality dropout in training).
            size: `(H, W)` of the logits; that of the images where left out.

        Raises:
            SartmError: both are None, or their sizes differ.
        """
        input_size = _common_size(rgb, thermal)
        fused = self.fused_maps(rgb, thermal, drop_mask)
        return SartmOutput(
            mask_logits=upsample_logits(self.mask_decoder(fused), input_size, size or input_size),
            auxiliary_logits=upsample_logits(
                self.auxiliary_head(fused), input_size, size or input_size
            ),
            fused=fused,
        )

    def fused_maps(
        self, rgb: Tensor | None, thermal: Tensor | None, drop_mask: Tensor | None = None
    ) -> Pyramid:
        """Encode and fuse the images, padded to multiples of 32; arguments of `forward`."""
        images = dict(zip(self.config.modalities, (rgb, thermal), strict=True))
        given = {name: _pad(_to_rgb(x)) for name, x in images.items() if x is not None}
        pyramids = self._encode(given)

        def fuse(level: int) -> Tensor:
            return self.fuse_level(level, pyramids, drop_mask)

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

    def fuse_level(
        self, level: int, pyramids: dict[str, Pyramid], drop_mask: Tensor | None
    ) -> Tensor:
        """The fused map of a level; a learned vector replaces a missing modality's map."""
        some_map = next(iter(pyramids.values()))[level]
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
        """An image `[B, C, H, W]` at `config.input_scale` of its size, as the network sees it."""
        return resize(image, self.scaled_size((image.shape[-2], image.shape[-1])))

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the network sees an image of height and width `size`."""
        height, width = (max(1, round(side * self.config.input_scale)) for side in size)
        return height, width

    def segment(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Class probabilities `[B, K, H, W]` of images whose size is H x W.

        The network sees them at `config.input_scale` of their size. Arguments and errors are those
        of `forward`.
        """
        size = _common_size(rgb, thermal)
        inputs = (None if image is None else self.resize_input(image) for image in (rgb, thermal))
        return self.probabilities(self(*inputs, size=size))

    def forward_logits(
        self, rgb: Tensor | None, thermal: Tensor | None, drop_mask: Tensor | None = None
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """The logits of the heads that the prediction takes, at a quarter of the padded input.

        Args:
            rgb, thermal: one pair as `resize_input` gives it.
            drop_mask: as of `forward`.

        Returns:
            `[K, h, w]` of each head, and height and width of the input without its padding.
        """
        fused = self.fused_maps(rgb, thermal, drop_mask)
        heads = {'mask': self.mask_decoder, 'auxiliary': self.auxiliary_head}
        chosen = [heads[name] for name in HEADS[self.config.prediction]]
        if self.runner is not None and len(chosen) == 2:
            both = self.runner(lambda: chosen[0](fused)[0], lambda: chosen[1](fused)[0])
            return list(both), _common_size(rgb, thermal)
        return [head(fused)[0] for head in chosen], _common_size(rgb, thermal)

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
        """Class probabilities `[B, K, H, W]`: the mean of the heads' or one head's, as configured.

        Computed in float32.
        """
        logits = {'mask': output.mask_logits, 'auxiliary': output.auxiliary_logits}
        heads = [logits[name] for name in HEADS[self.config.prediction]]
        return class_probabilities(torch.stack(heads))


def _to_rgb(x: Tensor) -> Tensor:
    """Repeat an image of one channel, `[B, 1, H, W]`, three times, as SAM2 expects RGB."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def _pad(x: Tensor) -> Tensor:
    """Pad bottom and right with zeros, the mean of a normalised image, to multiples of 32."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))


def _common_size(*images: Tensor | None) -> tuple[int, int]:
    """Height and width that all images have, of those that are there."""
    sizes = {(x.shape[-2], x.shape[-1]) for x in images if x is not None}
    if not sizes:
        raise SartmError('no image: the network needs at least one modality')
    if len(sizes) > 1:
        raise SartmError(f'the modalities differ in size: {sorted(sizes)}; expected one size')
    return sizes.pop()
