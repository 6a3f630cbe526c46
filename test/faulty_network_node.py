"""The node with an instant network that fails on request.

Of the predictor only `Sartm.forward_logits` is replaced. It gives every pixel the class of the last
thermal count, modulo the number of classes; RGB alone gives class 1. A thermal image whose first
row begins with `MAGIC` and a code requests one of the `FAULTS`.

A warm-up at the height `HOLD_HEIGHT` lasts until a signal arrives, as does the fault 'hold'.
SIGUSR1 has no other effect.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.inference.prediction import Prediction
from sartm_model.inference.predictor import Predictor
from sartm_model.models.sartm import Sartm
from sartm_ros.diagnosis import diagnostics, judgement
from sartm_ros.node import lifecycle_node
from sartm_ros.node.main import main

MAGIC = (201, 17, 202)
FAULTS = ('none', 'exception', 'exit', 'nan', 'all_nan', 'cuda_memory', 'cpu_memory', 'hold')
NAN_ROWS = 10
"""Rows of the labels that are affected by NaN in the first two rows of logits at stride 4."""

HOLD_HEIGHT = 1

_SIGNALS = os.pipe()

original = Predictor.predict


def predict(self: Any, images: Mapping[str, np.ndarray | None], **options: Any) -> Prediction:
    """See the module's text."""
    model, thermal = self.pipeline.model, images['thermal']
    model.fault, model.class_id = 'none', 1
    if thermal is not None:
        model.class_id = int(thermal[-1, -1]) % len(self.label_space)
        if tuple(thermal[0, :3]) == MAGIC:
            model.fault = FAULTS[thermal[0, 3]]
    return original(self, images, **options)


def forward_logits(
    self: Any, images: Mapping[str, Tensor]
) -> tuple[list[Tensor], tuple[float, float]]:
    """See the module's text."""
    height, width = next(iter(images.values())).shape[-2:]
    logits = torch.zeros(self.num_classes, -(-height // 4), -(-width // 4))
    logits[self.class_id] = 100
    if self.fault == 'exception':
        raise RuntimeError('no such kernel')
    if self.fault == 'exit':
        sys.exit('the thread')
    if self.fault == 'cuda_memory':
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')
    if self.fault == 'cpu_memory':
        torch.empty(2**60, dtype=torch.uint8)
    if self.fault == 'hold':
        hold()
    if self.fault in ('nan', 'all_nan'):
        logits[0, : 2 if self.fault == 'nan' else None] = torch.nan
    return [logits], (height / 4, width / 4)


def warm_up(self: Any, height: int, *_: Any) -> None:
    """See the module's text."""
    if height == HOLD_HEIGHT:
        hold()


def hold() -> None:
    """Wait until a signal arrives, of which Python writes the number to `_SIGNALS`."""
    print('holding', flush=True)
    os.read(_SIGNALS[0], 1)


if __name__ == '__main__':  # the tests import the names above without these replacements
    Predictor.predict = predict  # type: ignore[method-assign]
    Predictor.warm_up = warm_up  # type: ignore[method-assign]
    Sartm.forward_logits = forward_logits  # type: ignore[method-assign]
    # The tests wait for reports, and expect every warning in the log.
    lifecycle_node.REPORT_PERIOD_S = 0.2
    diagnostics.LOG_PERIOD_S = 0.0
    diagnostics.LASTS_S = judgement.BUSY_S = 0.5
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.set_blocking(_SIGNALS[1], False)
    signal.set_wakeup_fd(_SIGNALS[1])
    sys.exit(main())
