"""MA-CLIP: CLIP's embedding of an image, adapted so that it tells sensors and scenes apart.

Published is that CLIP, adapted by LoRA and trained by contrast of images with prompts of modality
and scene, guides the segmentation network. This file is what is part of the network: the image
tower with its adapters merged, frozen, and what brings the network's images to it. The adapters are
in `ma_clip_adapters`, their training in `training/ma_clip/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import ClipTowerConfig
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.utils.text import first_line
from sartm_model.utils.torchvision_patch import patch_torchvision_ops

SMALLEST_TEXT = {'context_length': 1, 'vocab_size': 1, 'width': 8, 'heads': 1, 'layers': 1}
"""Settings of a text tower that is thrown away."""


class MaClip(nn.Module):
    """The image tower, with random weights; the network loads the trained ones.

    Args:
        config: of the tower.

    Attributes:
        tower: the module of open_clip with split attentions, `[B, 3, S, S]` -> `[B, D]`.

    Raises:
        SartmError: open_clip is not installed or has no such model.
    """

    def __init__(self, config: ClipTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = build_tower(config)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the embedding of each image, of length one.

        Args:
            images: modality -> normalised `[B, C, H, W]`, as the network is given them.

        Returns:
            modality -> `[B, D]`.
        """
        inputs = [to_clip(image, self.config, self.tower.image_size) for image in images.values()]
        dtype = next(iter(images.values())).dtype
        embeddings = self.tower(torch.cat(inputs).to(dtype))
        unit = F.normalize(embeddings.float(), dim=1).to(dtype)
        return dict(zip(images, unit.chunk(len(images)), strict=True))


class SplitAttention(nn.Module):
    """An `nn.MultiheadAttention` as four Linears, so that `peft` can adapt those of `q` and `v`.

    `peft` has adapters for `nn.MultiheadAttention` itself, too. They add to its weights in each
    step and subtract again, which changes the weights by rounding. Nor does PyTorch count the
    operations of its inference.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        width, self.heads = fused.embed_dim, fused.num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        with torch.no_grad():
            weights = (*fused.in_proj_weight.chunk(3), fused.out_proj.weight)
            biases = (*fused.in_proj_bias.chunk(3), fused.out_proj.bias)
            for part, weight, bias in zip(
                (self.q, self.k, self.v, self.out), weights, biases, strict=True
            ):
                part.weight.copy_(weight)
                part.bias.copy_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend, `[B, N, C]` -> `[B, N, C]` and None, as `nn.MultiheadAttention` does."""
        assert not need_weights
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, query), (self.k, key), (self.v, value))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def build_tower(config: ClipTowerConfig) -> Any:
    """Return the image tower of an open_clip model with random weights; raises as `MaClip`.

    Its attentions are split, see `SplitAttention`.
    """
    open_clip = _import_open_clip()
    check_model(config.model)
    settings = open_clip.get_model_config(config.model)
    try:
        with torch.random.fork_rng(devices=[]):  # the other weights are those without MA-CLIP
            tower = open_clip.CLIP(
                settings['embed_dim'],
                settings['vision_cfg'],
                SMALLEST_TEXT,
                quick_gelu=config.quick_gelu,
            ).visual
    except Exception as error:  # open_clip's own errors, of models with other towers
        raise SartmError(
            f'open_clip model {config.model!r} has no image tower for MA-CLIP '
            f'({first_line(error)}); expected a vision transformer such as ViT-B-32'
        ) from error
    split_attentions(tower)
    return tower


def check_model(name: str) -> None:
    """Raise SartmError if open_clip does not have a model itself.

    The name may come from a checkpoint, and a model of a hub would be downloaded.
    """
    if name not in _import_open_clip().list_models():
        raise SartmError(
            f'open_clip has no model {name!r} of its own, which MA-CLIP is made of; expected one '
            'of open_clip.list_models(), such as ViT-B-32'
        )


def _import_open_clip() -> Any:
    patch_torchvision_ops()
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise SartmError(
            f'a network with MA-CLIP needs open_clip ({error}); install open_clip_torch '
            '(requirements/training.txt), or train with ma_clip.context=mean'
        ) from error
    return open_clip


def split_attentions(tower: nn.Module) -> None:
    """Make a `SplitAttention` of each attention of an image tower as open_clip builds it.

    Raises:
        SartmError: the tower has none.
    """
    found = [n for n, part in tower.named_modules() if isinstance(part, nn.MultiheadAttention)]
    if not found:
        raise SartmError(
            f'the image tower of MA-CLIP is a {type(tower).__name__} without attentions to adapt; '
            'expected that of a vision transformer such as ViT-B-32'
        )
    for name in found:
        fused = tower.get_submodule(name)
        assert isinstance(fused, nn.MultiheadAttention)
        tower.set_submodule(name, SplitAttention(fused))


def to_clip(images: Tensor, config: ClipTowerConfig, size: tuple[int, int]) -> Tensor:
    """Convert normalised images `[B, C, H, W]` to those of the tower, float32 `[B, 3, S, S]`.

    All of this is ours. Three channels are taken as they are, one is repeated, and of any other
    number the mean is. The whole image is resized, without a crop, in float32, because on a CPU
    there is no such operation in half precision. Each normalised image is taken for one with the
    mean and deviation of RGB, so that they are replaced by CLIP's.
    """
    images = images if images.shape[1] == 3 else images.mean(dim=1, keepdim=True)
    resized = F.interpolate(
        images.float(), size, mode='bilinear', align_corners=False, antialias=True
    )
    rgb = MODALITIES['rgb']
    # Scalars, not a tensor, which a CUDA graph could not bring to the device.
    channels = [
        (x * (std / 255) + mean / 255 - clip_mean) / clip_std
        for x, mean, std, clip_mean, clip_std in zip(
            resized.expand(-1, 3, -1, -1).unbind(1),
            rgb.mean,
            rgb.std,
            config.mean,
            config.std,
            strict=True,
        )
    ]
    return torch.stack(channels, dim=1)
