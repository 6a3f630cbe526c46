"""The memory figures of the diagnostics, the garbage collector's settings, and releasing memory.

torch is used only if it is already imported.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import psutil

MIB = 2**20


def figures(device: Any) -> dict[str, str]:
    """Return memory use in MiB by name: the process's resident memory and, on CUDA, torch's share.

    Args:
        device: a torch.device, its name, or None.

    Returns:
        `process_memory_mib`, and on a 'cuda' device that torch is used on `gpu_memory_mib` (in
        tensors), `gpu_memory_reserved_mib` (held by torch's allocator) and `gpu_memory_max_mib`
        (the peak in tensors since `release_memory`).
    """
    values = {'process_memory_mib': psutil.Process().memory_info().rss}
    if str(device).startswith('cuda') and 'torch' in sys.modules:
        import torch

        values['gpu_memory_mib'] = torch.cuda.memory_allocated(device)
        values['gpu_memory_max_mib'] = torch.cuda.max_memory_allocated(device)
        values['gpu_memory_reserved_mib'] = torch.cuda.memory_reserved(device)
    return {name: f'{count / MIB:.1f}' for name, count in values.items()}


def freeze_gc() -> None:
    """Exclude all present objects from garbage collection, until `release_memory`.

    A network and its libraries are some hundred thousand objects, and a full collection of them
    takes long enough to delay a frame.
    """
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Return the memory of a network that is not used any more: see `trim_memory`."""
    gc.unfreeze()
    trim_memory()
    if 'torch' in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)


def trim_memory() -> None:
    """Return unused memory to the system and to the GPU; what `freeze_gc` excluded stays so.

    Without this torch keeps its GPU memory, and glibc keeps the memory of freed tensors below
    32 MiB, which are nearly all.
    """
    gc.collect()
    if 'torch' in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # only glibc has it
    if trim is not None:
        trim(0)
