"""Reads tensors that an earlier start of a run computed and kept in its folder."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor


def read_cache(path: Path, request: str) -> dict[str, Tensor] | None:
    """Return the tensors of a `.safetensors` file whose metadata has this `request`.

    None if there is no such file, it has another request, or it is damaged or of another kind: its
    tensors are then to be computed and written again.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:
            if file.metadata()['request'] != request:
                return None
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError):
        return None
