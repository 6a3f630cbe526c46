"""Head 2, the auxiliary head: an FPN over the fused maps (eq. 10).

P = Up(SFM) + W1 IFP,    Q = Up(P) + W2 FFP,    logits = Conv3x3(Q)

Up doubles height and width bilinearly; W1 and W2 are 1x1 convolutions.

All of this is linear, so inference uses another order, `InferenceAuxiliaryHead`. Let A_t be the
`[K, C]` matrix of the 3x3 convolution at its offset t. The logits are the sum over the nine offsets
of A_t Q, shifted by t. A_t can be applied to each summand of Q, at that summand's own resolution:

    R_t = Up(A_t SFM) + A_t W1 IFP,    logits = sum_t shift_t(Up(R_t)) + Conv3x3(W2 FFP)

Only 9 K maps are upsampled instead of C, and no convolution of C channels is left at stride 4.
"""

from __future__ import annotations

import torch
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


class InferenceAuxiliaryHead(nn.Module):
    """Computes what an `AuxiliaryHead` computes, in the order that the module's docstring gives.

    Args:
        head: its weights are multiplied with each other, in float64.
    """

    def __init__(self, head: AuxiliaryHead) -> None:
        super().__init__()
        num_classes, channels = head.classifier.weight.shape[:2]
        self.taps_sfm = nn.Conv2d(channels, 9 * num_classes, kernel_size=1, bias=False)
        self.taps_ifp = nn.Conv2d(channels // 4, 9 * num_classes, kernel_size=1)
        self.classifier_ffp = nn.Conv2d(
            channels // 8, num_classes, kernel_size=3, padding=1, bias=False
        )
        weights = {name: value.detach().double() for name, value in head.state_dict().items()}
        classifier = weights['classifier.weight']  # [K, C, 3, 3]
        taps = classifier.permute(2, 3, 0, 1).flatten(0, 2)  # [9 K, C], the rows of all A_t
        w1, w2 = (weights[f'lateral_{level}.weight'][..., 0, 0] for level in ('ifp', 'ffp'))
        # Up keeps a constant, so all biases are added before it. Those of both 1x1 convolutions
        # have to be shifted with the maps, because the 3x3 one sees zeros outside of the map. Its
        # own bias is added to the maps that are not shifted.
        bias = taps @ (weights['lateral_ifp.bias'] + weights['lateral_ffp.bias'])
        bias.view(9, num_classes)[4] += weights['classifier.bias']
        assert self.taps_ifp.bias is not None
        with torch.no_grad():
            self.taps_sfm.weight.copy_(taps[..., None, None])
            self.taps_ifp.weight.copy_((taps @ w1)[..., None, None])
            self.taps_ifp.bias.copy_(bias)
            self.classifier_ffp.weight.copy_(torch.einsum('kcyx,cd->kdyx', classifier, w2))
        self.requires_grad_(False)

    def forward(self, fused: Pyramid) -> Tensor:
        """Compute logits `[B, K, H/4, W/4]` from the fused maps."""
        sfm, ifp, ffp = fused
        taps = _upsample_2x(self.taps_sfm(sfm)) + self.taps_ifp(ifp)  # [B, 9 K, H/8, W/8]
        return _sum_shifted(_upsample_2x(taps)) + self.classifier_ffp(ffp)


def _sum_shifted(taps: Tensor) -> Tensor:
    """Shift the maps of each offset of a 3x3 convolution by that offset and add them.

    Args:
        taps: `[B, 9 K, h, w]`, the K maps of the first offset first, offsets row by row. They are
            overwritten.

    Returns:
        `[B, K, h, w]`. Zeros are shifted in at the border.
    """
    taps = taps.unflatten(1, (3, 3, -1))
    if torch.compiler.is_compiling():
        return _sum_padded(taps)  # ONNX adds to a part of a tensor by many operations
    left, rows, right = (taps[:, :, x] for x in range(3))  # each [B, 3, K, h, w]
    rows[..., 1:].add_(left[..., :-1])
    rows[..., :-1].add_(right[..., 1:])
    top, centre, bottom = (rows[:, y] for y in range(3))  # each [B, K, h, w]
    centre[..., 1:, :].add_(top[..., :-1, :])
    centre[..., :-1, :].add_(bottom[..., 1:, :])
    return centre


def _sum_padded(taps: Tensor) -> Tensor:
    """Compute the sum of `_sum_shifted` from `[B, 3, 3, K, h, w]`, not in place."""
    height, width = taps.shape[-2:]
    padded = F.pad(taps, (1, 1, 1, 1))
    left, middle, right = (padded[:, :, x, ..., x : x + width] for x in range(3))
    rows = left + middle + right  # [B, 3, K, h + 2, w]
    top, centre, bottom = (rows[:, y, :, y : y + height] for y in range(3))
    return top + centre + bottom


def _upsample_2x(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)
