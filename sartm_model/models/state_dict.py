"""Reads published weights, loads weights into a module strictly, and identifies weights.

The errors name the file or the weights in question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line, format_names


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that has every weight of the module and no other.

    Args:
        module: receives the weights.
        state: name -> weight.
        source: what the weights were read from, for the error message.

    Raises:
        SartmError: see `check_keys`.
    """
    check_keys(module.state_dict(), state, source)
    module.load_state_dict(state)


def check_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Check that two state dicts have the same names and shapes.

    Raises:
        SartmError: they differ; the first missing, unexpected and wrongly shaped weights are named.
    """
    faults = []
    if missing := sorted(expected.keys() - found.keys()):
        faults.append(f'lacks {format_names(missing)}')
    if unexpected := sorted(found.keys() - expected.keys()):
        faults.append(f'has unexpected {format_names(unexpected)}')
    wrong_shapes = [
        f'{key} {list(found[key].shape)} instead of {list(expected[key].shape)}'
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if wrong_shapes:
        faults.append(f'has {format_names(wrong_shapes)}')
    if faults:
        raise SartmError(f'{source} does not fit the model: it {"; it ".join(faults)}')


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """Read a file of published weights, .safetensors or torch's; pickled code is never run.

    Args:
        path: the file.
        what: what it should hold, for the error messages, such as 'ImageNet weights of ...'.

    Raises:
        SartmError: the file is missing, cannot be read, or holds no state dict.
    """
    if not path.is_file():
        raise SartmError(f'{path} does not exist; expected a file with {what}')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        weights = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many kinds: damaged archive, refused pickle, ...
        raise SartmError(f'{path} cannot be read ({first_line(error)}); expected {what}') from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise SartmError(f'{path} holds no state dict; expected {what}')
    return weights


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the names and float32 values of weights, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].to('cpu', torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
