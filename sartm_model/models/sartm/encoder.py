"""The image encoder: SAM2's Hiera and FPN, shared by the modalities, with LoRA adapters (eq. 1-8).

The weights of SAM2 are frozen; each modality has its own adapters, see `lora`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.models.layers.folding import make_conv_1x1
from sartm_model.models.sartm.hiera import HieraRunner, TokenOrder, reorder
from sartm_model.models.sartm.lora import add_adapters, use_merged

_SAM2_SIZES = {'tiny': 't', 'small': 's', 'base_plus': 'b+', 'large': 'l'}

STRIDE = 32
"""Height and width of the network's input are multiples of this, the largest stride of Hiera."""


class Pyramid(NamedTuple):
    """The three feature maps of one modality, or of all modalities after the fusion.

    C is 256 with SAM2's Hiera, 128 for size lite and 96 for nano.

    Attributes:
        sfm: semantic feature map `[B, C, H/16, W/16]`.
        ifp: intermediate feature map `[B, C/4, H/8, W/8]`.
        ffp: fine feature map `[B, C/8, H/4, W/4]`.
    """

    sfm: Tensor
    ifp: Tensor
    ffp: Tensor


class Encoder(nn.Module):
    """Encodes all modalities in one pass, with shared weights and one adapter per modality.

    Several threads can use one encoder at once.

    Args:
        config: size, modalities and LoRA rank.
        merged: build the inference form, in which the adapters are part of the weights.
    """

    def __init__(self, config: ModelConfig, *, merged: bool) -> None:
        super().__init__()
        self.modalities = tuple(config.modalities)
        image_encoder = build_image_encoder(config.size)
        self.trunk: Hiera = image_encoder.trunk
        self.run_trunk = HieraRunner(self.trunk, fixed=merged)
        self.laterals: nn.ModuleList = image_encoder.neck.convs  # strides 32, 16, 8, 4
        self.channels: int = image_encoder.neck.d_model
        # SAM2 has these two in its mask decoder and applies them to the encoder's maps.
        self.conv_s0: nn.Module = nn.Conv2d(self.channels, self.channels // 8, kernel_size=1)
        self.conv_s1: nn.Module = nn.Conv2d(self.channels, self.channels // 4, kernel_size=1)
        if merged:
            use_merged(self.trunk, self.modalities)
        else:
            add_adapters(self.trunk, self.modalities, config.lora_rank)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Encode the given modalities.

        Args:
            images: modality name -> `[B, 3, H, W]`, normalised, H and W multiples of 32. It holds
                one or more of the configured modalities.

        Returns:
            A `Pyramid` for each modality given.
        """
        given = tuple(name for name in self.modalities if name in images)
        batch = torch.cat([images[name] for name in given])  # [M * B, 3, H, W], modality-major
        levels = self._fpn(self.run_trunk(batch, given))
        chunks = [level.chunk(len(given)) for level in levels]
        return {name: Pyramid(*(chunk[i] for chunk in chunks)) for i, name in enumerate(given)}

    def optimize_for_inference(self) -> None:
        """Replace each lateral and the 1x1 convolution after it by their product, for inference.

        Nothing stands between the two, and the map between them is the widest of the encoder.
        """
        _, _, at_8, at_4 = self.laterals
        self.laterals[2], self.conv_s1 = _compose_1x1(at_8, self.conv_s1), nn.Identity()
        self.laterals[3], self.conv_s0 = _compose_1x1(at_4, self.conv_s0), nn.Identity()

    def _fpn(self, stages: list[tuple[Tensor, TokenOrder]]) -> Pyramid:
        """Compute eq. 8: 1x1 laterals, and top-down by nearest neighbour into stride 16 only.

        SAM2's neck computes the same, but also a position encoding per level that is not needed
        here, and it turns half precision into float32.
        """
        to_32, to_16, to_8, to_4 = self.laterals
        convs = ([to_4, self.conv_s0], [to_8, self.conv_s1], [to_16], [to_32])
        at_4, at_8, at_16, at_32 = (
            _convolve_tokens(layers, *stage) for layers, stage in zip(convs, stages, strict=True)
        )
        return Pyramid(at_16 + F.interpolate(at_32, scale_factor=2.0, mode='nearest'), at_8, at_4)


def _convolve_tokens(layers: Iterable[nn.Module], tokens: Tensor, order: TokenOrder) -> Tensor:
    """Apply 1x1 convolutions to tokens `[N, T, d_in]`; return a map `[N, d_out, h, w]`."""
    for conv in (module for layer in layers for module in layer.modules()):
        if isinstance(conv, nn.Conv2d):
            tokens = F.linear(tokens, conv.weight[..., 0, 0], conv.bias)
    rows = reorder(tokens, order, order._replace(window=0))
    return rows.unflatten(1, (order.height, order.width)).permute(0, 3, 1, 2)


def _compose_1x1(first: nn.Module, second: nn.Module) -> nn.Conv2d:
    """Return the product of two 1x1 convolutions: W = W2 W1, b = W2 b1 + b2, in float64."""
    (w1, b1), (w2, b2) = (
        [weight.detach().double() for weight in layer.parameters()] for layer in (first, second)
    )
    w1, w2 = w1[..., 0, 0], w2[..., 0, 0]
    return make_conv_1x1(w2 @ w1, w2 @ b1 + b2)


def build_image_encoder(size: str) -> ImageEncoder:
    """Build SAM2's image encoder of a size with random weights; `nano` is a small Hiera of ours."""
    if size == 'nano':
        return _nano_image_encoder()
    from hydra.utils import instantiate

    return instantiate(sam2_config(size).model.image_encoder)


def sam2_config(size: str, version: str = 'sam2.1') -> Any:
    """Load SAM2's published configuration of a size as an OmegaConf tree.

    Args:
        size: tiny, small, base_plus or large.
        version: 'sam2' or 'sam2.1'.
    """
    from omegaconf import OmegaConf

    name = f'{version}_hiera_{_SAM2_SIZES[size]}.yaml'
    with resources.as_file(resources.files('sam2') / 'configs' / version / name) as path:
        return OmegaConf.load(path)


def _nano_image_encoder() -> ImageEncoder:
    """Build a Hiera that is small enough to train and run on a CPU.

    The windows of 10 and 5 tokens tile the stride-16 and stride-32 maps of a 480x640 image without
    padding (30x40 and 15x20). SAM2's windows of 14 and 7 tokens, made for 1024x1024, would add
    almost half of the tokens as padding.
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
