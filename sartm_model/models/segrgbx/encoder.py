"""The encoder of SegRGB-X: a Mix Transformer whose blocks all modalities share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sartm_model.modalities import MODALITIES
from sartm_model.models.layers.mit import Variant, build_mit
from sartm_model.models.layers.mit_weights import load_imagenet


class SharedEncoder(nn.Module):
    """A Mix Transformer in which only the first patch embedding belongs to one modality.

    That the blocks are shared is published. That the first patch embedding, a strided convolution
    and a norm, is not shared, because modalities differ in channels and statistics, and that those
    of the later stages are, is ours.

    Args:
        variant: widths and depths of the stages.
        modalities: of the network, RGB first. RGB has the patch embedding of `mit`, the others have
            theirs in `patch_embeddings`.

    Attributes:
        mit: the network of `transformers`; the stages in `mit.stages`.
    """

    def __init__(self, variant: Variant, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.mit = build_mit(variant)
        of_rgb = self.mit.stages[0].patch_embeddings
        self.patch_embeddings = nn.ModuleDict()
        for name in modalities[1:]:
            embedding = copy.deepcopy(of_rgb)
            conv = of_rgb.proj
            embedding.proj = nn.Conv2d(
                MODALITIES[name].channels,
                conv.out_channels,
                conv.kernel_size,
                conv.stride,
                conv.padding,
            )
            self.patch_embeddings[name] = embedding

    def load_imagenet(self, size: str, source: str) -> None:
        """Load ImageNet's weights; each modality starts from the patch embedding of RGB.

        An image of three channels gets its weights, any other one their sum over the channels
        divided by its number of channels, so that equal channels give what a grey RGB image gives
        (ours). Arguments and errors are those of `mit_weights.load_imagenet`.
        """
        load_imagenet(self.mit, size, source)
        of_rgb = self._patch_embedding('rgb')
        for embedding in self.patch_embeddings.values():
            state = of_rgb.state_dict()
            channels = embedding.proj.in_channels  # type: ignore[union-attr]
            if channels != 3:
                summed = state['proj.weight'].sum(dim=1, keepdim=True)
                state['proj.weight'] = summed.expand(-1, channels, -1, -1) / channels
            embedding.load_state_dict(state)

    def embed(self, images: Mapping[str, Tensor], weights: Tensor) -> tuple[Tensor, int, int]:
        """Return the first patch embedding of one stream.

        Args:
            images: modality -> `[B, C, H, W]`, of the modalities that the stream has.
            weights: of all modalities of the network, `[B, M]`, for the sum of several images.

        Returns:
            Tokens `[B, h w, C]`, h and w.
        """
        embedded = {name: self._patch_embedding(name)(image) for name, image in images.items()}
        tokens, height, width = next(iter(embedded.values()))
        if len(embedded) > 1:
            tokens = torch.stack(
                [
                    weights[:, self.modalities.index(name), None, None] * each
                    for name, (each, *_) in embedded.items()
                ]
            ).sum(dim=0)
        return tokens, height, width

    def embed_map(self, stage: int, x: Tensor) -> tuple[Tensor, int, int]:
        """Return the patch embedding of a later stage, as `embed`, of a map `[B, C, h, w]`."""
        return self.mit.stages[stage].patch_embeddings(x)

    def transform(self, stage: int, tokens: Tensor, height: int, width: int) -> Tensor:
        """Run the blocks and the norm of a stage: tokens `[B, h w, C]` -> map `[B, C, h, w]`."""
        for block in self.mit.stages[stage].blocks:
            tokens = block(tokens, height, width)
        tokens = self.mit.stages[stage].layer_norm(tokens)
        return tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()

    def _patch_embedding(self, modality: str) -> nn.Module:
        if modality in self.patch_embeddings:
            return self.patch_embeddings[modality]
        return self.mit.stages[0].patch_embeddings
