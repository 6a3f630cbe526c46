"""The text teacher: CLIP's embeddings of the class names, computed once and kept beside the run.

They come from a file of the user's, from what an earlier start left in the run's folder, or from
open_clip's frozen text tower, in this order. Training itself needs the numbers only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sartm_model.config import TextConfig
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.utils.files import write_file
from sartm_model.utils.text import first_line

CACHE_NAME = 'text.safetensors'

WORDS = {
    'unlabeled': '',
    'background': '',
    'bike': 'bicycle',
    'curve': 'curb',  # MFNet's images show curbs under this name,
    'car_stop': 'barrier',  # and railings under this one.
    'color_cone': 'traffic cone',
    'bump': 'speed bump',
    'survivor': 'person',
}
"""Class name -> words of a prompt where they differ from the name; '' takes no part."""


def text_embeddings(
    config: TextConfig, label_space: LabelSpace, out_dir: Path
) -> tuple[Tensor, Tensor]:
    """Embeddings of the class names.

    Args:
        config: the file to read, or the open_clip model to compute with.
        label_space: names K classes.
        out_dir: of the run; receives and keeps `text.safetensors`, where they were computed.

    Returns:
        Embeddings `[K, D]`, float32 of length one, zero where there is none; and which classes have
        one, bool `[K]`.

    Raises:
        SartmError: a file or setting that cannot be used, or open_clip or its weights are not
            there.
    """
    words = class_words(config, label_space)
    if config.embeddings:
        return _from_file(Path(config.embeddings).expanduser(), words)
    request = json.dumps(
        {
            'model': config.model,
            'pretrained': config.pretrained,
            'file_sha256': _file_hash(Path(config.pretrained)),
            'templates': list(config.templates),
            'words': words,
        }
    )
    cache = out_dir / CACHE_NAME
    found = _from_cache(cache, request)
    if found is None:
        tower, tokenizer = _open_tower(config)
        found = encode(tower, tokenizer, list(words.values()), config.templates)
        metadata = {'request': request, 'weights_sha256': _tower_hash(tower)}
        write_file(cache, save({'embeddings': found}, metadata))
    return found, _known(words)


def class_words(config: TextConfig, label_space: LabelSpace) -> dict[str, str]:
    """Class name -> words for a prompt, in the order of ids: configured, built in, or the name."""
    strange = sorted(set(config.names) - set(label_space.classes))
    if strange:
        raise SartmError(
            f'text.names has {", ".join(strange)}; expected classes of {label_space.name}: '
            f'{", ".join(label_space.classes)}'
        )
    known = {**WORDS, **config.names}
    return {name: known.get(name, name.replace('_', ' ')) for name in label_space.classes}


@torch.no_grad()
def encode(tower: Any, tokenizer: Any, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The mean of each word's normalised embeddings over the templates, normalised again.

    Args:
        tower: an open_clip model.
        tokenizer: its tokenizer.
        words: K of them; for an empty one the row is zero.
        templates: with {name} where the words go.

    Returns:
        float32 `[K, D]`.
    """
    rows = []
    for name in words:
        prompts = [template.replace('{name}', name) for template in templates]
        each = F.normalize(tower.encode_text(tokenizer(prompts)).float(), dim=1)  # [T, D]
        rows.append(F.normalize(each.mean(dim=0), dim=0) * bool(name))
    return torch.stack(rows)


def _open_tower(config: TextConfig) -> tuple[Any, Any]:
    """open_clip's model with its weights, and its tokenizer."""
    instead = (
        'give a precomputed file as text.embeddings (names, embeddings), or weights that are '
        'already here as text.pretrained; loss.language=0 trains without them'
    )
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise SartmError(
            f'text embeddings need open_clip ({error}); pip install open_clip_torch, or {instead}'
        ) from error
    # The tag knows which activation its weights were trained with; open_clip would only warn.
    tag = open_clip.get_pretrained_cfg(config.model, config.pretrained)
    try:
        tower = open_clip.create_model(
            config.model,
            config.pretrained,
            force_quick_gelu=tag.get('quick_gelu', False),
            require_pretrained=True,
        )
        return tower.eval(), open_clip.get_tokenizer(config.model)
    except Exception as error:  # no network, no such model, a file that does not fit, ...
        first = first_line(error)
        raise SartmError(
            f'open_clip model {config.model!r} with weights {config.pretrained!r} cannot be had '
            f'({first}); {instead}'
        ) from error


def _from_cache(path: Path, request: str) -> Tensor | None:
    """What an earlier start left, or None where it left nothing, or something else was asked."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:
            return file.get_tensor('embeddings') if file.metadata()['request'] == request else None
    except (SafetensorError, OSError, KeyError, TypeError):
        return None  # damaged or foreign: it is written anew


def _from_file(path: Path, words: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """A precomputed file's rows, by class name or else by the class's words."""
    names, embeddings = _read_file(path)
    if embeddings.ndim != 2 or len(names) != len(embeddings) or not len(names):
        raise SartmError(
            f'text embeddings {path} has {len(names)} names and embeddings '
            f'{list(embeddings.shape)}; expected one row of numbers a name, [N, D]'
        )
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise SartmError(f'text embeddings {path} has a row of zeros, or one with NaN or infinity')
    row = {name: torch.from_numpy(values) for name, values in zip(names, embeddings, strict=True)}
    found = [row.get(name, row.get(phrase)) if phrase else None for name, phrase in words.items()]
    known = torch.tensor([vector is not None for vector in found])
    if known.sum() < 2:
        wanted = ', '.join(phrase for phrase in words.values() if phrase)
        raise SartmError(
            f'text embeddings {path} holds {", ".join(names)}; expected at least two of the '
            f'classes or their words: {wanted}. text.names sets the words'
        )
    nothing = torch.zeros(embeddings.shape[1])
    rows = torch.stack([nothing if vector is None else vector for vector in found])
    return F.normalize(rows, dim=1), known


def _read_file(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and float32 embeddings of a .npz or .safetensors; never anything pickled."""
    expected = (
        "expected a .npz of 'names' and 'embeddings', or a .safetensors of 'embeddings' with a "
        "JSON list 'names' in its metadata"
    )
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, framework='np') as tensors:
                names = np.array(json.loads(tensors.metadata()['names']))
                embeddings = tensors.get_tensor('embeddings')
        else:
            with np.load(path, allow_pickle=False) as arrays:
                names, embeddings = arrays['names'], arrays['embeddings']
        return [str(name) for name in names], embeddings.astype(np.float32)
    except FileNotFoundError:
        raise SartmError(f'no text embeddings {path}; {expected}') from None
    except Exception as error:  # damaged archive, refused pickle, an array of another kind, ...
        first = first_line(error)
        raise SartmError(f'text embeddings {path} cannot be read ({first}); {expected}') from error


def _known(words: Mapping[str, str]) -> Tensor:
    return torch.tensor([bool(phrase) for phrase in words.values()])


def _file_hash(path: Path) -> str:
    """SHA-256 of a weights file; empty where the name is no file but a tag."""
    if not path.is_file():
        return ''
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _tower_hash(tower: Any) -> str:
    """SHA-256 over the weights of the text tower, which is all but `visual`."""
    digest = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        if not name.startswith('visual.'):
            digest.update(name.encode())
            digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
