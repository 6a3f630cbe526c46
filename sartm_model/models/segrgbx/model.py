"""SegRGB-X: one network for RGB and images of one of several other sensors.

arXiv 2603.28023, of which no code is public. Published are the two streams through blocks of shared
weights, the FRM and FFM of each stage, the modality-aligned embeddings, the DSRM in the last stage
and the head over a unified label space; what is not published is marked `ours` where it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.models.layers.fusion import CrossModalFusion
from sartm_model.models.layers.mit import VARIANTS
from sartm_model.models.layers.mlp_head import InferenceHead, MlpHead
from sartm_model.models.segrgbx.dsrm import Dsrm
from sartm_model.models.segrgbx.encoder import SharedEncoder
from sartm_model.models.segrgbx.ma_clip import MaClip
from sartm_model.models.segrgbx.modality_embedding import ModalityEmbedding

CONTEXT_WIDTH = 512
"""Numbers of a learned context, as many as CLIP ViT-B/32's embedding has."""

FUSION_HEADS = (1, 2, 5, 8)
"""Heads of the cross-attention of each stage, as in CMX."""


class Stream(NamedTuple):
    """One of the two streams.

    Attributes:
        side: 0 for RGB, 1 for X.
        images: modality -> `[B, C, H, W]`.
        weights: of all modalities of the network, `[B, M]`. Those of the images that a sample has
            are equal and sum to 1; all others are 0.
        is_missing: bool `[B]`; None if no sample lacks the stream.
    """

    side: int
    images: dict[str, Tensor]
    weights: Tensor
    is_missing: Tensor | None


class Segrgbx(SegmentationModel):
    """Two streams, one of RGB and one of the second modality X, that meet in each stage.

    A frame has RGB, or an image of X, or both. X may be another modality in each batch. These are
    ours: if images of several X are given, their first patch embeddings are averaged, so that there
    are never more than two streams; and after each stage a learned vector replaces the map of a
    missing stream.

    The context of the modality embeddings and the guidance of the DSRM are a vector a stream. It is
    the embedding that MA-CLIP gives of its image, or the direction of the mean of those of several
    X. It is scaled to the length sqrt(D), that of D numbers of variance 1 (ours). With
    `ClipTowerConfig.context` `mean` it is the mean embedding of the training images of a modality
    instead (ours). In a network without MA-CLIP it is a learned vector of the modality, `context`
    (ours).

    Args:
        config: size, modalities, and in `without` the `PARTS` that are left out.
        num_classes: K, the number of classes.

    Raises:
        SartmError: the size is none of `SIZES`, the modalities are not RGB and one or more others,
            or the package `transformers` is not installed.
    """

    SIZES = ('b0', 'b1', 'b2', 'b3', 'b4')
    HEADS: ClassVar = {'mlp': 'decode_head'}
    PARTS = ('modality_embedding', 'dsrm', 'ma_clip')
    INPUT_STRIDE = 32
    STAGES: ClassVar = {'encoder and fusion': 'fusions.3.fusion'}
    ROW_PER_CLASS = ('decode_head.classifier.weight', 'decode_head.classifier.bias')
    LOGIT_LAYERS = (r'decode_head\.classifier',)

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        modalities = config.modalities
        if modalities[0] != 'rgb' or len(modalities) < 2:
            raise SartmError(
                f'model.modalities is {list(modalities)}; segrgbx takes rgb first and one or more '
                'others, such as [rgb, depth, event]'
            )
        variant = VARIANTS[config.size]
        widths = variant.widths
        self.encoder = SharedEncoder(variant, modalities)
        self.fusions: Any = nn.ModuleList(
            CrossModalFusion(width, heads)
            for width, heads in zip(widths, FUSION_HEADS, strict=True)
        )
        self.missing_modality_embedding = nn.ParameterList(
            torch.randn(2, width) * 0.02 for width in widths
        )
        has_embedding, has_dsrm, has_ma_clip = (part not in config.without for part in self.PARTS)
        clip = config.ma_clip if has_ma_clip else None
        context_width = CONTEXT_WIDTH if clip is None else clip.width
        self.context: Any = None
        self.ma_clip: Any = None
        if has_embedding or has_dsrm:
            if clip is None:
                self.context = nn.Parameter(torch.randn(len(modalities), context_width))
            else:
                self.mean_embeddings: Tensor
                means = torch.zeros(len(modalities), context_width)
                self.register_buffer('mean_embeddings', means)
                self.ma_clip = MaClip(clip) if clip.context == 'image' else None
        self.modality_embeddings = nn.ModuleList(
            ModalityEmbedding(width, context_width, len(modalities))
            for width in (widths if has_embedding else ())
        )
        self.dsrm = Dsrm(widths[-1], context_width) if has_dsrm else None
        self.decode_head: nn.Module = MlpHead(widths, variant.head_width, num_classes)

    def encode(
        self,
        images: Mapping[str, Tensor],
        drop_mask: Tensor | None,
        embeddings: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the fused maps of the four stages.

        Args:
            images, drop_mask: as for the base class.
            embeddings: modality -> what MA-CLIP gives of its images, `[B, D]`, in a network that
                has it; computed here where left out.
        """
        streams = self._streams(images, drop_mask)
        # All tensors from here on have the samples of one stream after those of the other.
        weights = torch.cat([stream.weights for stream in streams])
        context = self._context(streams, weights, embeddings)
        embedded = [self.encoder.embed(stream.images, stream.weights) for stream in streams]
        tokens = torch.cat([of_one for of_one, _, _ in embedded])
        _, height, width = embedded[0]
        fused: list[Tensor] = []
        for stage, fusion in enumerate(self.fusions):
            if self.modality_embeddings:
                tokens = self.modality_embeddings[stage](tokens, context, weights)
            x = self.encoder.transform(stage, tokens, height, width)
            if self.dsrm is not None and stage == len(self.fusions) - 1:
                x = self.dsrm(x, context)
            both = fusion.rectification(*self._maps_of_both(stage, x, streams))
            fused.append(fusion.fusion(*both))
            if stage + 1 < len(self.fusions):
                rectified = torch.cat([both[stream.side] for stream in streams])
                tokens, height, width = self.encoder.embed_map(stage + 1, rectified)
        return fused

    def load_pretrained(self, setting: str, source: str) -> None:
        """Start the encoder from ImageNet's weights."""
        if setting == 'imagenet_weights':
            self.encoder.load_imagenet(self.config.size, source)
        else:
            super().load_pretrained(setting, source)

    def optimize_for_inference(self) -> None:
        """Multiply the layers of the head, see `InferenceHead`."""
        assert isinstance(self.decode_head, MlpHead)
        self.decode_head = InferenceHead(self.decode_head)

    def _context(
        self, streams: list[Stream], weights: Tensor, embeddings: Mapping[str, Tensor] | None
    ) -> Tensor | None:
        """Return the context of each sample of the streams, `[S B, D]`; None where nothing uses it.

        Args:
            streams: S of them.
            weights: of all modalities, `[S B, M]`.
            embeddings: as for `encode`.
        """
        if not (self.modality_embeddings or self.dsrm):
            return None
        if self.context is not None:
            return weights @ self.context
        if embeddings is None and self.ma_clip is not None:
            embeddings = self.ma_clip({k: x for s in streams for k, x in s.images.items()})
        if embeddings is None:
            context = weights @ self.mean_embeddings
        else:
            of_streams = []
            for stream in streams:
                each = [
                    stream.weights[:, self.encoder.modalities.index(name), None] * embeddings[name]
                    for name in stream.images
                ]
                of_streams.append(torch.stack(each).sum(dim=0))
            context = torch.cat(of_streams)
        # In float32: the smallest length that `normalize` divides by is 0 in half precision.
        unit = F.normalize(context.float(), dim=1).to(context.dtype)
        return unit * context.shape[1] ** 0.5

    def _streams(self, images: Mapping[str, Tensor], drop_mask: Tensor | None) -> list[Stream]:
        """Return the streams that have an image, RGB's first."""
        streams = []
        for side in (0, 1):
            of_side = {name: x for name, x in images.items() if (name != 'rgb') == bool(side)}
            if not of_side:
                continue
            some = next(iter(of_side.values()))
            ones, zeros = some.new_ones(some.shape[0]), some.new_zeros(some.shape[0])
            given = [ones if name in of_side else zeros for name in self.config.modalities]
            present = torch.stack(given, dim=1)  # [B, M]
            if drop_mask is not None:
                present = present * ~drop_mask
            count = present.sum(dim=1, keepdim=True)
            is_missing = None if drop_mask is None else count[:, 0] == 0
            streams.append(Stream(side, of_side, present / count.clamp(min=1), is_missing))
        return streams

    def _maps_of_both(self, stage: int, x: Tensor, streams: list[Stream]) -> list[Tensor]:
        """Return the maps `[B, C, h, w]` of RGB and X, a learned vector where one is missing."""
        maps = x.chunk(len(streams))
        both = []
        for side in (0, 1):
            vector = self.missing_modality_embedding[stage][side][None, :, None, None]
            both.append(vector.to(x.dtype).expand_as(maps[0]))
        for stream, of_stream in zip(streams, maps, strict=True):
            if stream.is_missing is None:
                both[stream.side] = of_stream
            else:
                is_missing = stream.is_missing[:, None, None, None]
                both[stream.side] = torch.where(is_missing, both[stream.side], of_stream)
        return both
