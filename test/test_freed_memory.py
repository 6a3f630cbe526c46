"""Freed memory stays in the process, in whichever thread it was freed."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MAPS = """
import resource, sys, threading
import torch
from sartm_model.freed_memory import keep_freed_memory

if sys.argv[1] == 'keep':
    assert keep_freed_memory()

def maps():
    for _ in range(5):
        torch.ones(24 * 2**20 // 4)  # more than one arena of a thread holds, with the next
        torch.ones(60 * 2**20 // 4)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps()
    thread = threading.Thread(target=maps)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(how):
    done = subprocess.run(
        [sys.executable, '-c', MAPS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallopt'), reason='no glibc: no mallopt')
def test_the_pages_of_a_freed_map_serve_the_next_one():
    # 84 MiB ten times are 215 000 pages of 4 KiB; some are of Python itself.
    assert faults('keep') < 2000
    assert faults('as it is') > 20_000
