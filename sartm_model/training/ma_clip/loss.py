"""The loss of MA-CLIP: contrast of images with the prompts of their modality and scene."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(images: Tensor, texts: Tensor, own: Tensor, scale: float) -> Tensor:
    """Return the InfoNCE loss of both directions, with all images of a prompt as its positives.

    That the training is by contrast of images and texts is published. The form is ours: many images
    of a batch have the same prompt, of which CLIP's loss would take all but one for negatives. With
    s_ip = scale * cos(image i, prompt p), over the images and the different prompts of the batch:

        L_image = mean_i -log (exp s_i,own(i) / sum_p exp s_ip)
        L_text = mean_p mean_{i: own(i) = p} -log (exp s_ip / sum_j exp s_jp)
        L = (L_image + L_text) / 2

    DA-CLIP, the nearest public relative, has two such losses, for two halves of its embedding. Here
    one embedding is to tell both modality and scene, so there is one.

    Args:
        images: embeddings `[B, D]` of length one.
        texts: embeddings of the different prompts of the batch, `[P, D]`, of length one.
        own: number of the prompt of each image, int64 `[B]`; each prompt has an image.
        scale: inverse of the temperature, CLIP's.

    It is computed in float32, also under autocast: bfloat16 has steps of 1/8 at a similarity of 25.
    """
    with torch.autocast(images.device.type, enabled=False):
        similarity = scale * images.float() @ texts.float().T  # [B, P]
    of_images = F.cross_entropy(similarity, own)
    is_own = F.one_hot(own, len(texts)).float()  # [B, P]
    log_probability = similarity.log_softmax(dim=0)
    of_texts = -((log_probability * is_own).sum(dim=0) / is_own.sum(dim=0)).mean()
    return (of_images + of_texts) / 2
