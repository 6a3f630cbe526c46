"""Adapters files: the weights that training adds to SAM2, without SAM2's own.

These are the LoRA adapters, the fusion and the heads. SAM2's weights are frozen, large and
published, so a trained network can be distributed without them: `extract` leaves them out of a
checkpoint, and `apply` restores the checkpoint with SAM2's official file.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sartm_model.config import SAM2_SIZES
from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.sam2_weights import load_sam2
from sartm_model.models.state_dict import load_strictly, sha256_of

KIND = 'sartm-adapters'


def extract(checkpoint: str | Path, out: Path) -> None:
    """Write the weights of a checkpoint that are not SAM2's.

    Args:
        checkpoint: written by `sartm train`, of a size that has SAM2 weights.
        out: the `.safetensors` to write. Its metadata holds a SHA-256 of the weights left out.

    Raises:
        SartmError: the checkpoint cannot be read, or has a size without SAM2 weights.
    """
    loaded = checkpoints.load(checkpoint)
    if loaded.config.name != 'sartm':
        raise SartmError(
            f'checkpoint {loaded.path} is of {loaded.config.name}, which contains no weights of '
            f'SAM2; distribute the checkpoint itself'
        )
    if loaded.config.size not in SAM2_SIZES:
        raise SartmError(
            f'checkpoint {loaded.path} has size {loaded.config.size}, which contains no weights of '
            f'SAM2; distribute the checkpoint itself'
        )
    frozen = _frozen_names(checkpoints.build(loaded, merged=False))
    sha256 = sha256_of({name: loaded.state[name] for name in frozen})
    added = {name: value for name, value in loaded.state.items() if name not in frozen}
    checkpoints.write(out, KIND, loaded.config, loaded.label_space, loaded.card, added, sam2=sha256)


def apply(adapters: Path, sam2_weights: Path, out: Path) -> None:
    """Write the checkpoint that an adapters file and SAM2's `.pt` make together.

    Args:
        adapters: written by `extract`.
        sam2_weights: the file from which the training run started.
        out: the checkpoint to write.

    Raises:
        SartmError: a file cannot be read, or the SAM2 weights are not those of the training run.
    """
    loaded, metadata = checkpoints.load_as(adapters, KIND)
    model = Sartm(loaded.config, len(loaded.label_space))
    load_sam2(model, sam2_weights)
    state = model.state_dict()
    frozen = {name: state[name] for name in _frozen_names(model)}
    if sha256_of(frozen) != metadata.get('sam2'):
        raise SartmError(
            f'{adapters} was trained on other SAM2 weights than {sam2_weights} holds; expected the '
            f'file the run started from (SAM2 and SAM2.1 differ)'
        )
    load_strictly(model, {**frozen, **loaded.state}, f'adapters {adapters}')
    checkpoints.save(out, model, loaded.label_space, loaded.card)


def _frozen_names(model: nn.Module) -> set[str]:
    """Return the names of the weights that are SAM2's.

    SAM2's head for mask quality is frozen too, but it has one output per class, so it is not
    SAM2's any more.
    """
    return {
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and '.iou_prediction_head.' not in name
    }
