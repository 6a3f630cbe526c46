"""Cross-modal fusion: feature rectification (FRM), then feature fusion (FFM), as in CMX.

J. Zhang et al., 'CMX: Cross-Modal Fusion for RGB-X Semantic Segmentation with Transformers',
IEEE T-ITS 2023, sections III-B and III-C. One `CrossModalFusion` serves one level of the pyramid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAMBDA_CHANNEL = 0.5
LAMBDA_SPATIAL = 0.5


class FeatureRectification(nn.Module):
    """FRM: each modality is corrected by the other, weighted by channel and by place.

        X1' = X1 + l_c Wc2 * X2 + l_s Ws2 * X2,    X2' = X2 + l_c Wc1 * X1 + l_s Ws1 * X1

    with Wc in (0, 1) from the pooled channels of both and Ws in (0, 1) from every place of both.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_weights = nn.Sequential(
            nn.Linear(4 * channels, 4 * channels),
            nn.ReLU(inplace=True),
            nn.Linear(4 * channels, 2 * channels),
            nn.Sigmoid(),
        )
        self.spatial_weights = nn.Sequential(
            nn.Conv2d(2 * channels, channels, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps `[B, C, h, w]` -> the two rectified maps, same shape."""
        both = torch.cat((first, second), dim=1)  # [B, 2C, h, w]
        pooled = torch.cat((both.mean(dim=(2, 3)), both.amax(dim=(2, 3))), dim=1)  # [B, 4C]
        by_channel = self.channel_weights(pooled)[..., None, None].chunk(2, dim=1)  # 2 [B, C, 1, 1]
        by_place = self.spatial_weights(both).chunk(2, dim=1)  # 2 x [B, 1, h, w]
        to_second, to_first = (
            LAMBDA_CHANNEL * channel + LAMBDA_SPATIAL * place
            for channel, place in zip(by_channel, by_place, strict=True)
        )
        return first + to_first * second, second + to_second * first


class CrossAttention(nn.Module):
    """Each modality's query reads the other's global context K^T V, `[d, d]` a head.

    Linear in the number of pixels: the context is formed once, never a pixel-to-pixel matrix.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.kv_first = nn.Linear(channels, 2 * channels, bias=False)
        self.kv_second = nn.Linear(channels, 2 * channels, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Two `[B, N, C]` -> two `[B, N, C]`."""
        context_first = self._context(self.kv_first(first))
        context_second = self._context(self.kv_second(second))
        return self._read(first, context_second), self._read(second, context_first)

    def _split(self, x: Tensor) -> Tensor:
        """`[B, N, C]` -> `[B, heads, N, C / heads]`"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _context(self, keys_values: Tensor) -> Tensor:
        """softmax(K^T V / sqrt(d)) over the keys' channels, `[B, heads, d, d]`.

        The sum runs over every pixel and passes the largest half-precision number on ordinary
        images, so it is taken in float32 whatever the rest runs in.
        """
        keys, values = (self._split(part) for part in keys_values.chunk(2, dim=-1))
        with torch.autocast(keys.device.type, enabled=False):
            context = keys.float().transpose(-2, -1) @ values.float() * self.scale
            return context.softmax(dim=-2).to(keys_values.dtype)

    def _read(self, queries: Tensor, context: Tensor) -> Tensor:
        return (self._split(queries) @ context).transpose(1, 2).flatten(2)


class FeatureFusion(nn.Module):
    """FFM: the modalities exchange context by cross-attention and are mixed into one map."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.proj_in_first = nn.Linear(channels, 2 * channels)
        self.proj_in_second = nn.Linear(channels, 2 * channels)
        self.attention = CrossAttention(channels, heads)
        self.proj_out_first = nn.Linear(2 * channels, channels)
        self.proj_out_second = nn.Linear(2 * channels, channels)
        self.norm_first = nn.LayerNorm(channels)
        self.norm_second = nn.LayerNorm(channels)
        self.skip = nn.Conv2d(2 * channels, channels, kernel_size=1, bias=False)
        self.mix = nn.Sequential(
            nn.Conv2d(2 * channels, channels, kernel_size=1),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=1),
            nn.BatchNorm2d(channels),
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two maps `[B, C, h, w]` -> one `[B, C, h, w]`."""
        size = first.shape[-2:]
        x1 = first.flatten(2).transpose(1, 2)  # [B, N, C]
        x2 = second.flatten(2).transpose(1, 2)
        residual1, query1 = self.proj_in_first(x1).relu().chunk(2, dim=-1)
        residual2, query2 = self.proj_in_second(x2).relu().chunk(2, dim=-1)
        read1, read2 = self.attention(query1, query2)
        x1 = self.norm_first(x1 + self.proj_out_first(torch.cat((residual1, read1), dim=-1)))
        x2 = self.norm_second(x2 + self.proj_out_second(torch.cat((residual2, read2), dim=-1)))
        both = torch.cat((x1, x2), dim=-1).transpose(1, 2).unflatten(2, size)  # [B, 2C, h, w]
        return self.norm(self.skip(both) + self.mix(both))


class CrossModalFusion(nn.Module):
    """FRM then FFM on one level: two maps in, one out, all `[B, C, h, w]`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.rectification = FeatureRectification(channels)
        self.fusion = FeatureFusion(channels, heads)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.fusion(*self.rectification(first, second))
