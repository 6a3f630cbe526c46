"""Starts SegFormer's encoder from its authors' weights from ImageNet, `nvidia/mit-b0` to `b5`.

The model repositories hold a `pytorch_model.bin`, which is read as tensors alone. `save_pretrained`
of `transformers` writes a `model.safetensors`, which is read too. The names of the weights are
those of `transformers` 4, in which they were published; the classifier of ImageNet is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from sartm_model.errors import SartmError
from sartm_model.models.state_dict import load_strictly, read_weights
from sartm_model.utils.hub import download_from_hub

FILES = ('model.safetensors', 'pytorch_model.bin')

_RENAMED = (
    (r'^segformer\.', ''),
    (r'^encoder\.patch_embeddings\.(\d)\.', r'stages.\1.patch_embeddings.'),
    (r'^encoder\.block\.(\d)\.', r'stages.\1.blocks.'),
    (r'^encoder\.layer_norm\.(\d)\.', r'stages.\1.layer_norm.'),
    (r'attention\.self\.(query|key|value)\.', lambda found: f'attention.{found[1][0]}_proj.'),
    (r'attention\.self\.sr\.', 'attention.sequence_reduction.sequence_reduction.'),
    (r'attention\.self\.layer_norm\.', 'attention.sequence_reduction.layer_norm.'),
    (r'attention\.output\.dense\.', 'attention.o_proj.'),
    (r'mlp\.dense([12])\.', r'mlp.fc\1.'),
    (r'\.layer_norm_1\.', '.layernorm_before.'),
    (r'\.layer_norm_2\.', '.layernorm_after.'),
)
"""Patterns in the published names and what takes their place in those of `transformers` 5."""


def load_imagenet(encoder: nn.Module, size: str, source: str) -> None:
    """Load ImageNet's weights into the encoder.

    Args:
        encoder: from `mit.build_mit`.
        size: of the encoder, 'b0' to 'b5'.
        source: 'hub' to download them from the model repository, or a folder with one of `FILES`,
            or such a file.

    Raises:
        SartmError: the weights cannot be found, downloaded or read, or are not those of this size;
            they are named.
    """
    path = _download(size) if source == 'hub' else _find(Path(source))
    weights = read_weights(path, f'ImageNet weights of nvidia/mit-{size}')
    state = {
        _present_name(key): value
        for key, value in weights.items()
        if not key.startswith('classifier.')
    }
    load_strictly(encoder, state, f'{path}')


def _present_name(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)  # type: ignore[arg-type]
    return key


def _find(source: Path) -> Path:
    if not source.is_dir():
        return source
    for name in FILES:
        if (source / name).is_file():
            return source / name
    raise SartmError(f'{source} has neither {" nor ".join(FILES)}; expected a folder with one')


def _download(size: str) -> Path:
    repo, name = f'nvidia/mit-{size}', FILES[1]
    advice = (
        f'download {name} of the model repository {repo} on another machine, copy it here and give '
        'its path as imagenet_weights'
    )
    return download_from_hub(repo, name, advice)
