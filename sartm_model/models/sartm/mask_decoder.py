"""Head 1: SAM2's mask decoder on the fused maps, with one mask token per class (eq. 9).

z, t = TwoWayTransformer(SFM + e, [q, class tokens])
U = GELU(Deconv(GELU(LN(Deconv(z) + IFP))) + FFP)
logit_k = <MLP_k(t_k), U>

e and q are SAM2's, and not in the paper: the embedding of 'no mask is given' and the token of the
mask quality, which is predicted no more, but takes part in the attention of the tokens.
"""

from __future__ import annotations

import torch
from sam2.modeling.position_encoding import PositionEmbeddingRandom
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from sartm_model.models.sartm.encoder import Pyramid


class ClassMaskDecoder(nn.Module):
    """SAM2's mask decoder with one mask token per class, without prompts and object scores.

    Args:
        channels: C, the width of the semantic feature map.
        num_classes: K, the number of mask tokens t_k.
        mlp_dim: hidden width of the two-way transformer's MLP, 2048 in SAM2.
    """

    def __init__(self, channels: int, num_classes: int, mlp_dim: int) -> None:
        super().__init__()
        self.masks = MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=channels, mlp_dim=mlp_dim, num_heads=8
            ),
            num_multimask_outputs=num_classes - 1,  # SAM2 adds one for its single mask
            iou_head_hidden_dim=channels,
            use_high_res_features=True,
            pred_obj_scores=False,
        )
        # The encoder has these two, because they project each modality before the fusion.
        del self.masks.conv_s0, self.masks.conv_s1
        self.position = PositionEmbeddingRandom(channels // 2)
        self.no_mask_embed = nn.Parameter(torch.zeros(1, channels))

    def forward(self, fused: Pyramid) -> Tensor:
        """Compute logits `[B, K, H/4, W/4]` from the fused maps."""
        sfm, ifp, ffp = fused
        # SAM2 encodes the 64x64 grid of its fixed 1024x1024 input; here the grid varies.
        position = self.position(sfm.shape[-2:])[None].to(sfm.dtype)  # [1, C, H/16, W/16]
        no_prompts = sfm.new_empty(sfm.shape[0], 0, sfm.shape[1])
        logits, *_ = self.masks.predict_masks(
            image_embeddings=sfm,
            image_pe=position,
            sparse_prompt_embeddings=no_prompts,
            dense_prompt_embeddings=self.no_mask_embed[:, :, None, None],
            repeat_image=False,
            high_res_features=[ffp, ifp],
        )
        return logits
