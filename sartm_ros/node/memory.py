"""The memory that the node has, and giving it back. torch is not imported where it is not yet."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

MIB = 2**20

_STATM = Path('/proc/self/statm')


def figures(device: Any) -> dict[str, str]:
    """MiB by name: what is resident of the process and, on a 'cuda' device, torch's share of it.

    `device` is a torch.device or None. `gpu_memory` is in tensors, `gpu_memory_reserved` what torch
    has of the device for them, `gpu_memory_max` the most that was in tensors since `give_back`.
    """
    values = {}
    if _STATM.exists():
        resident = int(_STATM.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        values['process_memory_mib'] = resident
    if device is not None and device.type == 'cuda':
        import torch

        values['gpu_memory_mib'] = torch.cuda.memory_allocated(device)
        values['gpu_memory_max_mib'] = torch.cuda.max_memory_allocated(device)
        values['gpu_memory_reserved_mib'] = torch.cuda.memory_reserved(device)
    return {name: f'{count / MIB:.1f}' for name, count in values.items()}


def settle() -> None:
    """Spare the collector of garbage what is there now, until `give_back`.

    A network and its libraries are some hundred thousand objects: to look through them takes long
    enough to be late with a frame.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return to the system and to the GPU what is no longer used.

    Without it torch keeps the memory of its GPU, and glibc that of tensors below 32 MiB, which are
    almost all of them.
    """
    gc.unfreeze()
    gc.collect()
    if 'torch' in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # only glibc has it
    if trim is not None:
        trim(0)
