"""`compile: true` of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sartm_model.errors import SartmError
from sartm_model.inference.compiled import use_cache_folder
from sartm_model.models.base import SegmentationModel, SegmentationOutput
from sartm_model.utils.text import first_line


def compiled_forward(
    model: SegmentationModel, device: torch.device
) -> Callable[..., SegmentationOutput]:
    """Return the `forward` of a network as `torch.compile` makes it, with the same weights.

    It is compiled at the first batch, and again for batches with other modalities. Being a function
    and no module, it can be an attribute of a module, whose state does not have the weights twice.

    Args:
        model: in the form that is trained.
        device: where it will run.

    Raises:
        SartmError: at the first batch, see `errors_of_compilation`.
    """
    use_cache_folder(device)
    compiled = torch.compile(model.forward, dynamic=False)

    def forward(*args: Any, **options: Any) -> SegmentationOutput:
        with errors_of_compilation():
            return compiled(*args, **options)

    return forward


@contextmanager
def errors_of_compilation() -> Iterator[None]:
    """Raise SartmError if the network cannot be compiled, such as for want of a C++ compiler.

    The backward pass is compiled when it first runs, so it needs this, too.
    """
    from torch._dynamo.exc import TorchDynamoException  # importing it takes seconds

    try:
        yield
    except TorchDynamoException as error:
        raise SartmError(
            f'the network cannot be compiled: {type(error).__name__}: {first_line(error)}; '
            'leave compile out'
        ) from error
