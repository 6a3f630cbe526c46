"""Make `import torchvision` work beside a build of torch that its compiled operators do not fit."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def patch_torchvision_ops() -> None:
    """Let torchvision be imported where its operators do not load; call it before peft and others.

    torchvision's wheel is built for CUDA. Beside a CPU build of torch its library does not load,
    which torchvision itself puts up with, until it describes two of the operators that are then
    missing: `import torchvision` raises RuntimeError, and so does every import that looks for it,
    of `peft` (by way of transformers), `pytorch_lightning` and `open_clip`. With the two declared,
    all but the compiled operators work; none of them is used here.

    Where torchvision is absent, loads, or fails in another way, nothing is changed.
    """
    if 'torchvision' in sys.modules or find_spec('torchvision') is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        # What did load would be taken for loaded the next time, without its parent's attributes.
        for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
            del sys.modules[name]
        if 'operator torchvision::' in str(error):
            _declare_operators()


def _declare_operators() -> None:
    import torch

    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            schema = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
            torch.library.define(f'torchvision::{name}', schema)
