"""A small open_clip model with CLIP's vocabulary, under the name 'small-test'."""

from __future__ import annotations

import json
from pathlib import Path

SMALL = {
    'embed_dim': 24,
    'vision_cfg': {'image_size': 32, 'layers': 2, 'width': 64, 'patch_size': 16},
    'text_cfg': {
        'context_length': 20,
        'vocab_size': 49408,
        'width': 16,
        'heads': 2,
        'layers': 2,
    },
}


def register(folder: Path, **settings: object) -> None:
    """Make the model known to open_clip; its description is written into the folder.

    Settings, such as `quick_gelu`, are added to it.
    """
    import open_clip

    (folder / 'small-test.json').write_text(json.dumps(SMALL | settings))
    open_clip.add_model_config(folder / 'small-test.json')
