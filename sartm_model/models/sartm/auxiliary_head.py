"""Head 2, the auxiliary head: an FPN over the fused maps (eq. 10).

P = Up(SFM) + W1 IFP,    Q = Up(P) + W2 FFP,    logits = Conv3x3(Q)

Up doubles height and width bilinearly; W1 and W2 are 1x1 convolutions.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.models.sartm.encoder import Pyramid


class AuxiliaryHead(nn.Module):
    """FPN head on the fused maps.

    Args:
        channels: C, the width of the semantic feature map.
        num_classes: K, the number of classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.lateral_ifp = nn.Conv2d(channels // 4, channels, kernel_size=1)
        self.lateral_ffp = nn.Conv2d(channels // 8, channels, kernel_size=1)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=3, padding=1)

    def forward(self, fused: Pyramid) -> Tensor:
        """Compute logits `[B, K, H/4, W/4]` from the fused maps."""
        sfm, ifp, ffp = fused
        p = _upsample_2x(sfm) + self.lateral_ifp(ifp)  # [B, C, H/8, W/8]
        q = _upsample_2x(p) + self.lateral_ffp(ffp)  # [B, C, H/4, W/4]
        return self.classifier(q)


def _upsample_2x(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)
