"""Loads weights into a module strictly, with errors that name the weights in question."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sartm_model.errors import SartmError
from sartm_model.utils.text import format_names


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
