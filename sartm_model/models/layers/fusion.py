"""Cross-modal fusion: feature rectification (FRM), then feature fusion (FFM), as in CMX.

J. Zhang et al., 'CMX: Cross-Modal Fusion for RGB-X Semantic Segmentation with Transformers',
IEEE T-ITS 2023, sections III-B and III-C. Each level of the pyramid has its own `CrossModalFusion`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAMBDA_CHANNEL = 0.5
LAMBDA_SPATIAL = 0.5


class FeatureRectification(nn.Module):
    """FRM: adds to each modality the other one, weighted by channel and by position.

        X1' = X1 + l_c Wc2 * X2 + l_s Ws2 * X2,    X2' = X2 + l_c Wc1 * X1 + l_s Ws1 * X1

    with the channel weights Wc in (0, 1) computed from the pooled maps of both modalities and the
    spatial weights Ws in (0, 1) computed from both maps at each position.
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
        """Rectify the maps of both modalities, each `[B, C, h, w]`."""
        both = torch.cat((first, second), dim=1)  # [B, 2C, h, w]
        pooled = torch.cat((both.mean(dim=(2, 3)), both.amax(dim=(2, 3))), dim=1)  # [B, 4C]
        by_channel = self.channel_weights(pooled)[..., None, None].chunk(2, dim=1)  # 2 [B, C, 1, 1]
        by_position = self.spatial_weights(both).chunk(2, dim=1)  # 2 x [B, 1, h, w]
        to_second, to_first = (
            LAMBDA_CHANNEL * channel + LAMBDA_SPATIAL * position
            for channel, position in zip(by_channel, by_position, strict=True)
        )
        return first + to_first * second, second + to_second * first


class CrossAttention(nn.Module):
    """Multiplies the queries of each modality with the global context K^T V of the other one.

    The context is `[d, d]` per head, so the cost is linear in the number of pixels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.kv_first = nn.Linear(channels, 2 * channels, bias=False)
        self.kv_second = nn.Linear(channels, 2 * channels, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from each modality to the other; all are `[B, N, C]`, N the number of pixels."""
        context_first = self._context(self.kv_first(first))
        context_second = self._context(self.kv_second(second))
        return self._attend(first, context_second), self._attend(second, context_first)

    def _split(self, x: Tensor) -> Tensor:
        """Split the heads: `[B, N, C]` -> `[B, heads, N, C / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _context(self, keys_values: Tensor) -> Tensor:
        """Compute softmax(K^T V / sqrt(d)) over the channels of the keys, `[B, heads, d, d]`.

        The sum over all pixels exceeds the largest half-precision number on ordinary images, so it
        is computed in float32 even if the network runs in half precision.
        """
        keys, values = (self._split(part) for part in keys_values.chunk(2, dim=-1))
        device_type = keys.device.type
        if device_type == 'meta':  # on which operations are counted, and which has no autocast
            device_type = 'cpu'
        with torch.autocast(device_type, enabled=False):
            context = keys.float().transpose(-2, -1) @ values.float() * self.scale
            return context.softmax(dim=-2).to(keys_values.dtype)

    def _attend(self, queries: Tensor, context: Tensor) -> Tensor:
        return (self._split(queries) @ context).transpose(1, 2).flatten(2)


class FeatureFusion(nn.Module):
    """FFM: exchanges context between the modalities by cross-attention and merges their maps."""

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
        """Fuse the maps of both modalities, each `[B, C, h, w]`, into one of the same shape."""
        size = first.shape[-2:]
        x1 = first.flatten(2).transpose(1, 2)  # [B, N, C]
        x2 = second.flatten(2).transpose(1, 2)
        residual1, query1 = self.proj_in_first(x1).relu().chunk(2, dim=-1)
        residual2, query2 = self.proj_in_second(x2).relu().chunk(2, dim=-1)
        attended1, attended2 = self.attention(query1, query2)
        x1 = self.norm_first(x1 + self.proj_out_first(torch.cat((residual1, attended1), dim=-1)))
        x2 = self.norm_second(x2 + self.proj_out_second(torch.cat((residual2, attended2), dim=-1)))
        both = torch.cat((x1, x2), dim=-1).transpose(1, 2).unflatten(2, size)  # [B, 2C, h, w]
        return self.norm(self.skip(both) + self.mix(both))


class CrossModalFusion(nn.Module):
    """FRM followed by FFM on one level: two maps `[B, C, h, w]` in, one out."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.rectification = FeatureRectification(channels)
        self.fusion = FeatureFusion(channels, heads)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.fusion(*self.rectification(first, second))
