"""The text teacher: CLIP's embeddings of the class names, the target of the language loss.

They come from a file that the user gives, else from the file that an earlier start left in the
run's folder, else from open_clip's frozen text encoder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sartm_model.config import TextConfig
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.training.clip import load_clip
from sartm_model.training.tensor_cache import read_cache
from sartm_model.utils.files import sha256_of_file, write_file
from sartm_model.utils.text import first_line, format_names

CACHE_FILE = 'text.safetensors'

ALTERNATIVES = (
    'give a precomputed file as text.embeddings (names, embeddings), or weights that are already '
    'here as text.pretrained; loss.language=0 trains without them'
)
"""What to do if CLIP cannot be loaded."""

PROMPT_WORDS = {
    'bike': 'bicycle',
    # In MFNet's images, 'curve' are curbs and 'car_stop' are railings.
    'curve': 'curb',
    'car_stop': 'barrier',
    'color_cone': 'traffic cone',
    'bump': 'speed bump',
    'survivor': 'person',
}
"""Class name -> its words in a prompt, if they are not the name."""


def text_embeddings(config: TextConfig, label_space: LabelSpace, out_dir: Path) -> Tensor:
    """Get the embeddings of the class names.

    Args:
        config: the file to read, or the open_clip model to compute with.
        label_space: names the K classes.
        out_dir: of the run; computed embeddings are kept there as `text.safetensors`.

    Returns:
        float32 `[K, D]`, of length one; zeros for a class without an embedding.

    Raises:
        SartmError: a file or a setting cannot be used, or open_clip or its weights are missing.
    """
    words = class_words(config, label_space)
    if config.embeddings:
        return _from_file(Path(config.embeddings), words)
    pretrained = Path(config.pretrained)
    request = json.dumps(
        {
            'model': config.model,
            'pretrained': config.pretrained,
            # Empty for one of open_clip's tags, which is no file.
            'file_sha256': sha256_of_file(pretrained) if pretrained.is_file() else '',
            'templates': list(config.templates),
            'words': words,
        }
    )
    cache = out_dir / CACHE_FILE
    embeddings = (read_cache(cache, request) or {}).get('embeddings')
    if embeddings is None:
        text_encoder, tokenizer = load_clip(config.model, config.pretrained, ALTERNATIVES)
        embeddings = encode(text_encoder, tokenizer, list(words.values()), config.templates)
        write_file(cache, save({'embeddings': embeddings}, {'request': request}))
    return embeddings


def class_words(config: TextConfig, label_space: LabelSpace) -> dict[str, str]:
    """Class name -> words in a prompt, in the order of ids; '' leaves the class out.

    The words are those of `config.names`, else none for the background, else those of
    `PROMPT_WORDS`, else the name itself.
    """
    unknown = [name for name in config.names if name not in label_space.classes]
    if unknown:
        raise SartmError(
            f'text.names has {", ".join(unknown)}; expected classes of {label_space.name}: '
            f'{", ".join(label_space.classes)}'
        )
    given = dict(PROMPT_WORDS)
    if label_space.background_id is not None:
        given[label_space.classes[label_space.background_id]] = ''
    given |= config.names
    return {name: given.get(name, name.replace('_', ' ')) for name in label_space.classes}


@torch.no_grad()
def encode(
    text_encoder: Any, tokenizer: Any, words: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """The mean of the normalised embeddings of a class over the templates, normalised again.

    Args:
        text_encoder: an open_clip model.
        tokenizer: its tokenizer.
        words: of each of K classes; empty words give a row of zeros.
        templates: of the prompts, with {name} for the words.

    Returns:
        float32 `[K, D]`.
    """
    rows = []
    for name in words:
        prompts = [template.replace('{name}', name) for template in templates]
        each = F.normalize(text_encoder.encode_text(tokenizer(prompts)).float(), dim=1)  # [T, D]
        rows.append(F.normalize(each.mean(dim=0), dim=0) * bool(name))
    return torch.stack(rows)


def _from_file(path: Path, words: Mapping[str, str]) -> Tensor:
    """The rows of a precomputed file, found by the class name, else by the class's words.

    A name in the file may also be LVIS's spelling of these: `car_(automobile)` for `car`. It
    counts where neither is in the file itself and no second name has the same words.
    """
    names, embeddings = _read_file(path)
    if embeddings.ndim != 2 or len(names) != len(embeddings) or not len(names):
        raise SartmError(
            f'text embeddings {path} has {len(names)} names and embeddings '
            f'{list(embeddings.shape)}; expected one row of numbers a name, [N, D]'
        )
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise SartmError(f'text embeddings {path} has a row of zeros, or one with NaN or infinity')
    spellings = [_without_lvis_spelling(name) for name in names]
    once = {s: name for s, name in zip(spellings, names, strict=True) if spellings.count(s) == 1}
    row = {name: torch.from_numpy(values) for name, values in zip(names, embeddings, strict=True)}
    found = []
    for name, phrase in words.items():
        keys = (name, phrase, once.get(_without_lvis_spelling(phrase))) if phrase else ()
        found.append(next((row[key] for key in keys if key in row), None))
    if sum(vector is not None for vector in found) < 2:
        wanted = ', '.join(phrase for phrase in words.values() if phrase)
        raise SartmError(
            f'text embeddings {path} holds {format_names(names)}; expected at least two of the '
            f'classes or their words: {wanted}. text.names sets the words'
        )
    zeros = torch.zeros(embeddings.shape[1])
    rows = torch.stack([zeros if vector is None else vector for vector in found])
    return F.normalize(rows, dim=1)


def _without_lvis_spelling(name: str) -> str:
    """Return a name with blanks for underscores and without an explanation in brackets."""
    return re.sub(r'_\(.*\)$', '', name).replace('_', ' ')


def _read_file(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and float32 embeddings of a .npz or .safetensors; pickled content is refused."""
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
        raise SartmError(
            f'text embeddings {path} cannot be read ({first_line(error)}); {expected}'
        ) from error
