"""Continues from a network with other classes: what depends on the classes starts anew.

If some classes have the same names, their weights are kept (`transfer_classes`). After pretraining
on pseudo-labels, whose classes mean nothing, the heads start anew (`replace_heads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sartm_model.models.base import SegmentationModel
from sartm_model.models.state_dict import load_strictly


class ClassTransfer(NamedTuple):
    """Which classes have the weights of an earlier network.

    Attributes:
        kept: classes of both networks, which are matched by name.
        new: classes that the earlier network lacks; their weights start anew.
        dropped: classes of the earlier network alone.
    """

    kept: list[str]
    new: list[str]
    dropped: list[str]


@torch.no_grad()
def transfer_classes(
    model: SegmentationModel,
    classes: Sequence[str],
    earlier: Mapping[str, Tensor],
    earlier_classes: Sequence[str],
) -> ClassTransfer:
    """Load the weights of a network with other classes; nothing else may differ.

    `ROW_PER_CLASS` and `MODULE_PER_CLASS` of the model say which weights belong to a class.

    Args:
        model: receives the weights; its own stay for the classes that the earlier one lacks.
        classes: names of the model's classes, in the order of ids.
        earlier: the state dict of the earlier network, in the form that is trained.
        earlier_classes: names of its classes.

    Raises:
        SartmError: the networks differ in more than their classes.
    """
    earlier_ids = {
        id_: earlier_classes.index(name)
        for id_, name in enumerate(classes)
        if name in earlier_classes
    }
    prefixes = tuple(f'{name}.' for name in model.MODULE_PER_CLASS)
    state = {key: value for key, value in earlier.items() if not key.startswith(prefixes)}
    for key, own in model.state_dict().items():
        if key.startswith(prefixes):
            prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
            number, _, rest = key.removeprefix(prefix).partition('.')
            earlier_id = earlier_ids.get(int(number))
            is_kept = earlier_id is not None
            state[key] = earlier[f'{prefix}{earlier_id}.{rest}'] if is_kept else own
        elif key in model.ROW_PER_CLASS:
            state[key] = own.clone()
            for id_, earlier_id in earlier_ids.items():
                state[key][id_] = earlier[key][earlier_id]
    load_strictly(model, state, 'the earlier network')
    return ClassTransfer(
        kept=[name for name in classes if name in earlier_classes],
        new=[name for name in classes if name not in earlier_classes],
        dropped=[name for name in earlier_classes if name not in classes],
    )


@torch.no_grad()
def replace_heads(model: SegmentationModel, earlier: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Load the weights of a network with other classes, but for those of its heads.

    Frozen layers of the heads, which published weights have brought, are kept.

    Args:
        model: receives the weights; its heads keep their own.
        earlier: the state dict of the earlier network, in the form that is trained.

    Returns:
        Name of each head -> the names of its weights that start anew.

    Raises:
        SartmError: the networks differ in more than their classes.
    """
    own = model.state_dict()
    anew: dict[str, list[str]] = {}
    for head, prefix in model.HEADS.items():
        names = []
        for name, layer in model.head(head).named_modules(prefix=prefix):
            weights = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
            is_trained = any(weight.requires_grad for _, weight in weights)
            full_names = [f'{name}.{weight}' for weight, _ in weights]
            starts_anew = own.keys() if is_trained else model.ROW_PER_CLASS
            names += [key for key in full_names if key in starts_anew]
        anew[head] = names
    kept = {key: own[key] for names in anew.values() for key in names}
    # Earlier classes that the model lacks have weights under names of their own.
    per_class = tuple(f'{name}.' for name in model.MODULE_PER_CLASS)
    common = {k: v for k, v in earlier.items() if k in own or not k.startswith(per_class)}
    load_strictly(model, {**common, **kept}, 'the pretrained network')
    return anew
