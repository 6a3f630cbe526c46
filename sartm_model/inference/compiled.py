"""The engine 'compile': `torch.compile` of the network, kept on disk for the next start."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel
from sartm_model.utils.text import first_line

CACHE_VARIABLE = 'TORCHINDUCTOR_CACHE_DIR'
"""The environment variable from which torch takes the folder of what it has compiled."""


class CannotCompileError(Exception):
    """The network cannot be compiled; the text is one line that says why."""


class CompiledNetwork:
    """`SegmentationModel.forward_logits`, compiled for each set of modalities and each size.

    torch compiles when the first images of a kind come, which takes a minute, and not again for
    images of that kind. After eight kinds in a process, its recompile limit, it runs any further
    kind uncompiled.

    The network is compiled as one piece: its runner is taken away.

    Args:
        model: in its inference form, on the device and in its precision.
    """

    def __init__(self, model: SegmentationModel) -> None:
        model.runner = None
        self._forward_logits = torch.compile(model.forward_logits, dynamic=False)
        self._compiled_kinds: set[tuple[tuple[str, torch.Size], ...]] = set()

    def __call__(self, images: Mapping[str, Tensor]) -> tuple[list[Tensor], tuple[float, float]]:
        """Return what `forward_logits` does; raise CannotCompileError for a kind without code."""
        kind = tuple((name, image.shape) for name, image in images.items())
        if kind in self._compiled_kinds:
            return self._forward_logits(images)
        try:
            result = self._forward_logits(images)
        except (SartmError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # torch, Triton and the C++ compiler have many
            if 'DefaultCPUAllocator' in str(error):  # a RuntimeError: the host's memory ran out
                raise
            raise CannotCompileError(f'{type(error).__name__}: {first_line(error)}') from error
        self._compiled_kinds.add(kind)
        return result


def use_cache_folder(device: torch.device) -> Path:
    """Let torch keep compiled code in the user's cache folder, and return the folder in use.

    There is one folder for each version of torch and each model of GPU, because code for another
    one is of no use; the first call decides for the process. torch loads programs from it: nobody
    else may write there. A folder that `TORCHINDUCTOR_CACHE_DIR` names is used as it is. Where the
    user's cache folder cannot be written to, it is a temporary folder, and every start compiles.

    Args:
        device: where the network runs.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
    subfolder = re.sub(r'[^\w.+-]+', '_', f'torch_{torch.__version__}_{name}')
    try:
        parent = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        folder = Path(parent) / 'sartm' / subfolder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(folder)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        folder = Path(tempfile.mkdtemp(prefix='sartm_compiled_'))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[CACHE_VARIABLE] = str(folder)
    return folder
