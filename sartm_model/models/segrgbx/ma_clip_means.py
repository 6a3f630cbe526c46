"""Takes the image tower of MA-CLIP out of a checkpoint, for a faster and smaller network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints


def without_tower(checkpoint: checkpoints.Checkpoint, out: Path) -> None:
    """Write a checkpoint that uses the mean embedding of each modality (ours).

    Args:
        checkpoint: of a `segrgbx` network with the image tower of MA-CLIP.
        out: the `.safetensors` to write.

    Raises:
        SartmError: the network has no such tower.
    """
    clip = checkpoint.config.ma_clip
    state = {k: v for k, v in checkpoint.state.items() if not k.startswith('ma_clip.')}
    if clip is None or len(state) == len(checkpoint.state):
        raise SartmError(
            f'checkpoint {checkpoint.path} has no image tower of MA-CLIP; distribute it itself'
        )
    config = replace(checkpoint.config, ma_clip=replace(clip, context='mean'))
    card = checkpoint.card
    checkpoints.write(out, checkpoints.KIND, config, checkpoint.label_space, card, state)
