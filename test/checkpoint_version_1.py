"""Writes files as the first version of the checkpoint's format had them."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

# Name today -> name in version 1, in the order in which one is replaced by the other.
NAMES = {
    'missing_modality_embedding.': 'absent.',
    '.fusion.proj_in_': '.fusion.enter_',
    '.fusion.proj_out_': '.fusion.leave_',
    'auxiliary_head.lateral_': 'auxiliary_head.widen_',
    'auxiliary_head.classifier.': 'auxiliary_head.classify.',
}


def write_version_1(source: Path, target: Path) -> int:
    """Rewrite a checkpoint or an adapters file; the number of weights that had another name."""
    state, renamed = {}, 0
    with safe_open(source, framework='pt') as file:
        metadata = file.metadata()
        for key in file.keys():  # noqa: SIM118
            old = key
            for now, before in NAMES.items():
                old = old.replace(now, before)
            renamed += old != key
            state[old] = file.get_tensor(key)
    format_ = metadata['format'].replace('-2', '-1')
    save_file(state, target, {**metadata, 'format': format_})
    return renamed
