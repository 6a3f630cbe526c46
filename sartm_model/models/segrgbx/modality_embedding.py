"""Modality-aligned embeddings: tells each stage of the shared encoder which sensor it looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ModalityEmbedding(nn.Module):
    """Adds one vector to all tokens of a stream, before the blocks of a stage.

    Published is that three things meet at each stage: the input embeddings e, control prompts from
    MA-CLIP, and learnable prompts of the modality. How they are combined is not. Ours is the
    injection of DA-CLIP (Luo et al., ICLR 2024):

        e' = e + W (softmax(MLP(c)) * p) + b

    with the context c, the prompt p of the modality, and the product by channel. The MLP, W and b
    are shared by all modalities. c comes from the network's `context`, see `Segrgbx`.

    Args:
        width: channels C of the stage.
        context_width: D, of the context.
        num_modalities: M.
    """

    def __init__(self, width: int, context_width: int, num_modalities: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.rand(num_modalities, width))
        self.control = nn.Sequential(
            nn.Linear(context_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.injection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, context: Tensor, weights: Tensor) -> Tensor:
        """Return the tokens with the vector of their modality added.

        Args:
            tokens: `[B, N, C]`.
            context: `[B, D]`.
            weights: `[B, M]` of the modalities in each sample; they sum to 1.
        """
        control = self.control(context).softmax(dim=-1)
        vector = self.injection(control * (weights @ self.prompts))  # [B, C]
        return tokens + vector[:, None]
