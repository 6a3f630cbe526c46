"""How the processes of a training run keep memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

PAGES_OF_TENSOR = 64 * 2**20 // 4096
FREE_TEN_TENSORS = """
import platform, resource
from sartm_model.training.processes import keep_freed_memory
import torch
{before}
for _ in range(20):
    torch.ones(16 * 2**20)
begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
print(platform.libc_ver()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


def page_faults(before: str) -> int:
    """Return the page faults of allocating and freeing a tensor of 64 MiB the 21st to 30th time."""
    script = FREE_TEN_TENSORS.format(before=before)
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    libc, faults = run.stdout.split()
    if libc != 'glibc':
        pytest.skip(f"the setting is glibc's, and this is {libc}")
    return int(faults)


def test_freed_tensors_are_allocated_again_without_page_faults() -> None:
    assert page_faults('keep_freed_memory()') < PAGES_OF_TENSOR


def test_without_the_setting_every_tensor_is_new_memory() -> None:
    """If this fails, glibc or torch keeps memory by itself and the setting is not needed."""
    assert page_faults('') > 9 * PAGES_OF_TENSOR
