"""Checks of the values of settings, with errors that name the setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sartm_model.errors import SartmError


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise SartmError unless the value of a setting is one of the choices."""
    if value not in choices:
        raise SartmError(f'{key} is {value!r}; expected one of {", ".join(choices)}')


def check_templates(key: str, templates: Sequence[str]) -> None:
    """Raise SartmError unless there is a prompt, and all have {name} in them."""
    if not templates or any('{name}' not in template for template in templates):
        raise SartmError(f'{key} is {list(templates)}; expected one or more with {{name}}')


def check_positive(key: str, value: int) -> None:
    """Raise SartmError unless the value is 1 or more."""
    if value < 1:
        raise SartmError(f'{key} is {value}; expected 1 or more')


def check_not_negative(key: str, value: float) -> None:
    """Raise SartmError unless the value is 0 or more, and finite."""
    if not 0 <= value < math.inf:  # nor NaN
        raise SartmError(f'{key} is {value}; expected 0 or more')


def check_fraction(key: str, value: float) -> None:
    """Raise SartmError unless the value is 0 to 1."""
    if not 0 <= value <= 1:
        raise SartmError(f'{key} is {value}; expected 0 to 1')
