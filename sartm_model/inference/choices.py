"""The device, the precision and the engine of a predictor, by name."""

from __future__ import annotations

import torch

from sartm_model.errors import SartmError
from sartm_model.inference.device_name import parse_device

PRECISIONS = {
    'fp32': torch.float32,
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
}

ENGINES = ('eager', 'graph', 'parallel', 'compile')
"""The ways to run a network, see `Predictor`."""


def choose_device(name: str) -> torch.device:
    """Return the device of 'auto', 'cpu', 'cuda' or 'cuda:N'; raise SartmError without it."""
    kind, number = parse_device(name)
    if kind == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if kind == 'cuda' and (number or 0) >= torch.cuda.device_count():
        raise SartmError(
            f'device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; '
            f'use cpu, or install a CUDA build of torch'
        )
    return torch.device(kind) if number is None else torch.device(kind, number)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the key of `PRECISIONS` that a name or 'auto' means; raise SartmError for others."""
    if name == 'auto':
        return 'fp16' if device.type == 'cuda' else 'fp32'
    if name not in PRECISIONS:
        raise SartmError(f'precision {name!r}; expected auto, {", ".join(PRECISIONS)}')
    return name


def choose_engine(name: str, device: torch.device) -> str:
    """Return the one of `ENGINES` that a name or 'auto' means; raise SartmError for others."""
    if name == 'auto':
        if device.type == 'cuda':
            return 'graph'
        return 'parallel' if torch.get_num_threads() > 1 else 'eager'
    if name not in ENGINES or (name == 'parallel' and device.type != 'cpu'):
        raise SartmError(
            f'engine {name!r} on {device}; expected auto, eager, graph, compile or, on a CPU, '
            'parallel'
        )
    return name
