"""Head 2: an FPN over the fused maps (eq. 10).

P = Up(SFM) + W1 IFP,    Q = Up(P) + W2 FFP,    logits = Conv3x3(Q)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.models.sartm.encoder import Pyramid


class AuxiliaryHead(nn.Module):
    """The FPN auxiliary head: `channels` is C of the pyramid, `num_classes` is K."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.widen_ifp = nn.Conv2d(channels // 4, channels, kernel_size=1)
        self.widen_ffp = nn.Conv2d(channels // 8, channels, kernel_size=1)
        self.classify = nn.Conv2d(channels, num_classes, kernel_size=3, padding=1)

    def forward(self, fused: Pyramid) -> Tensor:
        """The fused maps -> logits `[B, K, H/4, W/4]`."""
        sfm, ifp, ffp = fused
        p = _double(sfm) + self.widen_ifp(ifp)  # [B, C, H/8, W/8]
        q = _double(p) + self.widen_ffp(ffp)  # [B, C, H/4, W/4]
        return self.classify(q)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)
