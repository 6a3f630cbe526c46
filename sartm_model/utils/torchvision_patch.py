"""Makes `import torchvision` work with a build of torch that its compiled operators do not fit."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def patch_torchvision_ops() -> None:
    """Declare the operators of torchvision that are missing, so that it can be imported.

    Call this before importing a package that imports torchvision: `peft` (through transformers),
    `pytorch_lightning` or `open_clip`.

    torchvision's wheel is built for CUDA, and its compiled library does not load with a CPU build
    of torch. torchvision tolerates that, but then registers fake implementations for two operators
    of the library, which raises RuntimeError because they do not exist. Once the two are declared,
    everything but the compiled operators works; SARTM uses none of them.

    Nothing is changed if torchvision is not installed, can be imported, or fails for another
    reason.
    """
    if 'torchvision' in sys.modules or find_spec('torchvision') is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        # Submodules that did load stay in sys.modules, and the next import would not set them as
        # attributes of their parents.
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
