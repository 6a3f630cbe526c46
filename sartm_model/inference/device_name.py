"""The names of devices, the same for torch, for ONNX Runtime and for the node; imports neither."""

from __future__ import annotations

import re

from sartm_model.errors import SartmError


def parse_device(name: str, what: str = 'device') -> tuple[str, int | None]:
    """Split the name of a device into its kind and its number.

    Args:
        name: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        what: begins the error message.

    Returns:
        'auto', 'cpu' or 'cuda', and N; None for a name without a number.

    Raises:
        SartmError: it is another name.
    """
    found = re.fullmatch(r'auto|cpu|cuda(:[0-9]+)?', name)
    if found is None:
        raise SartmError(f'{what} is {name!r}; expected auto, cpu, cuda or cuda:N')
    kind, _, number = name.partition(':')
    return kind, int(number) if number else None
