"""Loads a CLIP model of the package `open_clip`."""

from __future__ import annotations

import logging
from typing import Any

import torch

from sartm_model.config import ClipTowerConfig, MaClipConfig
from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

RANDOM = 'random'
"""In place of the name of weights: none are loaded."""


def load_clip(model: str, pretrained: str, alternatives: str, seed: int = 0) -> tuple[Any, Any]:
    """Return an open_clip model in evaluation mode on the CPU, and its tokenizer.

    Args:
        model: its name.
        pretrained: its weights: a file, a tag of open_clip, which downloads them, or `RANDOM`.
        alternatives: what a user may do instead, for the error message.
        seed: of random weights.

    Raises:
        SartmError: open_clip is not installed, there is no such model, or its weights cannot be
            loaded.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise SartmError(
            f'CLIP needs open_clip ({error}); install open_clip_torch '
            f'(requirements/training.txt), or {alternatives}'
        ) from error
    # Weights trained with another activation than the model's give wrong embeddings, of which
    # open_clip only warns. The entry of the tag says which activation it was.
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    try:
        if pretrained == RANDOM:
            clip = _with_random_weights(open_clip, model, seed)
        else:
            clip = open_clip.create_model(
                model,
                pretrained,
                force_quick_gelu=tag.get('quick_gelu', False),
                require_pretrained=True,
            )
        return clip.eval(), open_clip.get_tokenizer(model)
    except Exception as error:  # no network, no such model, a file that does not fit, ...
        raise SartmError(
            f'open_clip model {model!r} with weights {pretrained!r} cannot be loaded '
            f'({first_line(error)}); {alternatives}'
        ) from error


def tower_config(clip: Any, config: MaClipConfig) -> ClipTowerConfig:
    """Return what a network with the image tower of an open_clip model stores of it.

    Args:
        clip: the model.
        config: with the names of the model and of its weights.
    """
    import open_clip

    entries = (
        open_clip.get_model_config(config.model) or {},
        open_clip.get_pretrained_cfg(config.model, config.pretrained),
    )
    images = clip.visual.preprocess_cfg
    return ClipTowerConfig(
        config.model,
        any(entry.get('quick_gelu', False) for entry in entries),
        tuple(images['mean']),
        tuple(images['std']),
        clip.visual.output_dim,
        config.context,
    )


def _with_random_weights(open_clip: Any, model: str, seed: int) -> Any:
    """Return a model whose weights the seed decides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip's warning that the weights are random
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return open_clip.create_model(model)
    finally:
        logging.disable(disabled)
