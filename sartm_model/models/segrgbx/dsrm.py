"""DSRM: modulates the last stage's map of each stream by the guidance of its modality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dsrm(nn.Module):
    """Scales and shifts a map by channel, where it agrees with the guidance.

    Published is that the module takes the map F of the last stage and MA-CLIP's guidance S, and
    that both streams share its weights. The formula is not; it is ours:

        F' = F + G * (a(S) * F + b(S)),    G = sigmoid(t cos(P F, S) + u)

    a and b are linear in S and have a value a channel. P projects the C channels of F at each
    position to the D of S, so that the gate G has a value a position. t and u are learned numbers.
    a and b begin as 0, so that F' begins as F.

    Args:
        width: C.
        guidance_width: D.
    """

    def __init__(self, width: int, guidance_width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(guidance_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.projection = nn.Conv2d(width, guidance_width, kernel_size=1)
        self.gate_scale = nn.Parameter(torch.ones(1))
        self.gate_shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Modulate maps `[B, C, h, w]` by guidance `[B, D]`."""
        scale, shift = self.modulation(guidance)[..., None, None].chunk(2, dim=1)  # [B, C, 1, 1]
        gate = (self.gate_scale * self._agreement(x, guidance) + self.gate_shift).sigmoid()
        return x + gate * (scale * x + shift)

    def _agreement(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Return the cosine of each position's projection with the guidance, `[B, 1, h, w]`.

        In float32, because a sum of squares may exceed the largest half-precision number.
        """
        projected = F.normalize(self.projection(x).float(), dim=1)
        direction = F.normalize(guidance.float(), dim=1)
        return (projected * direction[..., None, None]).sum(dim=1, keepdim=True).to(x.dtype)
