"""The shared image encoder: SAM2's Hiera and FPN with a LoRA adapter a modality (eq. 1-8)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.models.sartm.lora import Route, add_adapters, use_merged

_SAM2_SIZES = {'tiny': 't', 'small': 's', 'base_plus': 'b+', 'large': 'l'}

STRIDE = 32
"""Height and width of the network's input are multiples of this: Hiera's coarsest stride."""


class Pyramid(NamedTuple):
    """The three maps a modality leaves the encoder with; C is 256 (96 for nano).

    Attributes:
        sfm: semantic feature map `[B, C, H/16, W/16]`.
        ifp: intermediate feature map `[B, C/4, H/8, W/8]`.
        ffp: fine feature map `[B, C/8, H/4, W/4]`.
    """

    sfm: Tensor
    ifp: Tensor
    ffp: Tensor


class Encoder(nn.Module):
    """Encodes every modality in one pass with shared weights and per-modality adapters.

    Args:
        config: size, modalities and LoRA rank.
        merged: build the inference form, where the adapters are part of the weights.
    """

    def __init__(self, config: ModelConfig, *, merged: bool) -> None:
        super().__init__()
        self.modalities = tuple(config.modalities)
        self.route = Route(self.modalities)
        self.merged = merged
        self._positions: dict[tuple[int, int], Tensor] = {}  # of the last grid, see `_position`
        image_encoder = build_image_encoder(config.size)
        self.trunk: Hiera = image_encoder.trunk
        self.laterals: nn.ModuleList = image_encoder.neck.convs  # coarsest first
        self.channels: int = image_encoder.neck.d_model
        # In SAM2 these two belong to the mask decoder, which runs them on the encoder's maps.
        self.conv_s0: nn.Module = nn.Conv2d(self.channels, self.channels // 8, kernel_size=1)
        self.conv_s1: nn.Module = nn.Conv2d(self.channels, self.channels // 4, kernel_size=1)
        if merged:
            use_merged(self.trunk, self.modalities, self.route)
        else:
            add_adapters(self.trunk, self.modalities, config.lora_rank, self.route)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Encode the modalities given.

        Args:
            images: modality name -> `[B, 3, H, W]`, normalised, H and W multiples of 32. Any
                non-empty part of the configured modalities will do.

        Returns:
            A `Pyramid` for each modality given.
        """
        present = tuple(name for name in self.modalities if name in images)
        self.route.modalities = present
        batch = torch.cat([images[name] for name in present])  # [M * B, 3, H, W]
        levels = self._pyramid(self._stages(batch))
        chunks = [level.chunk(len(present)) for level in levels]
        return {name: Pyramid(*(chunk[i] for chunk in chunks)) for i, name in enumerate(present)}

    def fuse_1x1_convs(self) -> None:
        """Make one convolution of each lateral and the one that follows it, for inference.

        Both are 1x1 with nothing between them, and between them the map is widest.
        """
        _, _, middle, fine = self.laterals
        self.laterals[2], self.conv_s1 = _compose_1x1(middle, self.conv_s1), nn.Identity()
        self.laterals[3], self.conv_s0 = _compose_1x1(fine, self.conv_s0), nn.Identity()

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Hiera's forward: the last map of each stage `[N, C_i, H / s, W / s]`, finest first.

        Its own interpolates the position embedding anew for each image. Without gradients, on a
        CPU, that of the last grid is kept: it is as dear as a block of nano.
        """
        trunk = self.trunk
        x = trunk.patch_embed(images)  # [N, h, w, C]
        x = x + self._position((x.shape[1], x.shape[2]))
        stages = []
        for index, block in enumerate(trunk.blocks):
            x = block(x)
            if index in trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages

    def _position(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding `[1, h, w, C]`."""
        keep = self.merged and self.trunk.pos_embed.device.type == 'cpu'
        if not keep:
            return self.trunk._get_pos_embed(grid)
        if grid not in self._positions:
            self._positions = {grid: self.trunk._get_pos_embed(grid)}
        return self._positions[grid]

    def _pyramid(self, stages: list[Tensor]) -> Pyramid:
        """Eq. 8: 1x1 laterals, top-down by nearest neighbour into stride 16 only.

        SAM2's neck computes the same; its forward adds a position encoding a level that we do not
        need and turns half precision into float32.
        """
        at_4, at_8, at_16, at_32 = stages  # [M * B, C_i, H / s, W / s]
        coarsest, coarse, middle, fine = self.laterals
        sfm = coarse(at_16) + F.interpolate(coarsest(at_32), scale_factor=2.0, mode='nearest')
        return Pyramid(sfm, self.conv_s1(middle(at_8)), self.conv_s0(fine(at_4)))


def _compose_1x1(first: nn.Module, second: nn.Module) -> nn.Conv2d:
    """Two 1x1 convolutions as one: W = W2 W1, b = W2 b1 + b2, computed in float64."""
    (w1, b1), (w2, b2) = (
        [weight.detach().double() for weight in layer.parameters()] for layer in (first, second)
    )
    composed = nn.Conv2d(w1.shape[1], w2.shape[0], kernel_size=1)
    weight = torch.einsum('oi,ij->oj', w2[..., 0, 0], w1[..., 0, 0])
    with torch.no_grad():
        composed.weight.copy_(weight[..., None, None])
        assert composed.bias is not None
        composed.bias.copy_(w2[..., 0, 0] @ b1 + b2)
    return composed.requires_grad_(False)


def build_image_encoder(size: str) -> ImageEncoder:
    """SAM2's image encoder of a size, with random weights; `nano` is our own small Hiera."""
    if size == 'nano':
        return _nano_image_encoder()
    from hydra.utils import instantiate

    return instantiate(sam2_config(size).model.image_encoder)


def sam2_config(size: str, version: str = 'sam2.1') -> Any:
    """SAM2's published configuration of a size as an OmegaConf tree; version 'sam2' or 'sam2.1'."""
    from omegaconf import OmegaConf

    name = f'{version}_hiera_{_SAM2_SIZES[size]}.yaml'
    with resources.as_file(resources.files('sam2') / 'configs' / version / name) as path:
        return OmegaConf.load(path)


def _nano_image_encoder() -> ImageEncoder:
    """A Hiera small enough to train and run on a CPU.

    The windows of 10 and 5 tokens tile the stride-16 and stride-32 maps of a 480x640 image without
    padding (30x40 and 15x20); SAM2's 14 and 7, made for 1024x1024, would pad almost half.
    """
    trunk = Hiera(
        embed_dim=24,
        num_heads=1,
        stages=(1, 2, 4, 1),
        window_spec=(8, 4, 10, 5),
        global_att_blocks=(6,),
        window_pos_embed_bkg_spatial_size=(7, 7),
    )
    nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
    nn.init.trunc_normal_(trunk.pos_embed_window, std=0.02)
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=96, warmup_cache=False),
        d_model=96,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model='nearest',
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)
