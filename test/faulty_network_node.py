"""The real node with an instant network that fails when a pair asks it to.

All of `Predictor.predict` is as shipped but for `Sartm.forward_logits`, which gives every pixel the
class of the last thermal count, modulo the number of classes. A thermal image whose first row
begins with `MAGIC` and a code asks for one of the `FAULTS`. RGB alone is of class 1.

A warm-up at a height of `HOLD_HEIGHT` lasts until a signal has come, and so does 'hold'.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.inference.prediction import Prediction
from sartm_model.inference.predictor import Predictor
from sartm_model.models.sartm import Sartm
from sartm_ros.node.main import main

MAGIC = (201, 17, 202)
FAULTS = ('none', 'exception', 'nan', 'all_nan', 'cuda_memory', 'cpu_memory', 'hold')
NAN_ROWS = 10
"""Of the labels: those that the first two rows of a quarter's height have a part in."""

HOLD_HEIGHT = 1

original = Predictor.predict


def predict(
    self: Any, rgb: np.ndarray | None, thermal: np.ndarray | None, **options: Any
) -> Prediction:
    """See the module's text."""
    model = self.pipeline.model
    model.fault, model.class_id = 'none', 1
    if thermal is not None:
        model.class_id = int(thermal[-1, -1]) % len(self.label_space)
        if tuple(thermal[0, :3]) == MAGIC:
            model.fault = FAULTS[thermal[0, 3]]
    return original(self, rgb, thermal, **options)


def forward_logits(
    self: Any, rgb: Tensor | None, thermal: Tensor | None
) -> tuple[list[Tensor], tuple[int, int]]:
    """See the module's text."""
    given = thermal if rgb is None else rgb
    assert given is not None
    height, width = given.shape[-2:]
    logits = torch.zeros(self.num_classes, -(-height // 4), -(-width // 4))
    logits[self.class_id] = 100
    if self.fault == 'exception':
        raise RuntimeError('no such kernel')
    if self.fault == 'cuda_memory':
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
    if self.fault == 'cpu_memory':
        torch.empty(2**60, dtype=torch.uint8)
    if self.fault == 'hold':
        hold()
    if self.fault in ('nan', 'all_nan'):
        logits[0, : 2 if self.fault == 'nan' else None] = torch.nan
    return [logits], (height, width)


def warm_up(self: Any, height: int, width: int) -> None:
    """See the module's text."""
    if height == HOLD_HEIGHT:
        hold()


def hold() -> None:
    """Wait for the node's own signal handler, which gives a signal back when it comes."""
    print('holding', flush=True)
    while signal.SIG_DFL not in map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)):
        time.sleep(0.001)


if __name__ == '__main__':  # who imports the names above keeps the real network
    Predictor.predict = predict  # type: ignore[method-assign]
    Predictor.warm_up = warm_up  # type: ignore[method-assign]
    Sartm.forward_logits = forward_logits  # type: ignore[method-assign]
    sys.exit(main())
