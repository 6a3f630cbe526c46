"""What training added to SAM2, in a file of its own: the adapters, the fusion and the heads.

SAM2's own weights stay out: they are frozen, large, and everybody has them. `extract` leaves them
out of a checkpoint, `apply` puts them back from SAM2's official file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from sartm_model.config import to_dict
from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.utils.files import write_file

KIND = 'sartm-adapters'


def extract(checkpoint: str | Path, out: Path) -> None:
    """Write what training added to SAM2.

    Args:
        checkpoint: as `sartm train` leaves it, of a size that has SAM2 weights.
        out: receives the `.safetensors`, with a SHA-256 of the weights that were left out.

    Raises:
        SartmError: the checkpoint cannot be read, or is of size nano, which is trained whole.
    """
    loaded = checkpoints.load(checkpoint)
    if loaded.config.size == 'nano':
        raise SartmError(
            f'checkpoint {loaded.path} is of size nano, which shares no weight with SAM2; its '
            f'.safetensors is all there is'
        )
    frozen = _frozen(checkpoints.build(loaded, merged=False))
    metadata = {
        'format': f'{KIND}-{checkpoints.VERSION}',
        'model': json.dumps(to_dict(loaded.config)),
        'labels': json.dumps(loaded.label_space.to_dict()),
        'card': json.dumps(loaded.card),
        'sam2': _fingerprint({name: loaded.state[name] for name in frozen}),
    }
    added = {name: value for name, value in loaded.state.items() if name not in frozen}
    write_file(out, to_safetensors(added, metadata))


def apply(adapters: Path, sam2_weights: Path, out: Path) -> None:
    """Write the checkpoint that `adapters` and SAM2's official `.pt` make together.

    Raises:
        SartmError: a file cannot be read, or the SAM2 file is not the one the run started from.
    """
    loaded, sam2 = checkpoints.load_as(adapters, KIND)
    model = Sartm(loaded.config, len(loaded.label_space))
    checkpoints.load_sam2(model, sam2_weights)
    state = model.state_dict()
    frozen = {name: state[name] for name in _frozen(model)}
    if _fingerprint(frozen) != sam2.get('sam2'):
        raise SartmError(
            f'{adapters} was trained on other SAM2 weights than {sam2_weights} holds; expected the '
            f'file the run started from (SAM2 and SAM2.1 differ)'
        )
    checkpoints.load_strictly(model, {**frozen, **loaded.state}, f'adapters {adapters}')
    checkpoints.save(out, model, loaded.label_space, loaded.card)


def _frozen(model: Sartm) -> set[str]:
    """Names of the weights that are SAM2's.

    The head of SAM2's mask quality is frozen too, but has an output a class and is never used.
    """
    return {
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and '.iou_prediction_head.' not in name
    }


def _fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
