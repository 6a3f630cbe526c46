"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# `make test` runs one process of tests on each core, so each gets one thread. Tests of what the CPU
# engine does with several threads use the fixture `two_threads`.
torch.set_num_threads(1)

# A shell that starts the tests in the background lets them ignore SIGINT. Child processes inherit
# that, and several tests end their child processes with SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Give torch two threads, with which 'auto' selects the parallel CPU engine, for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real frames, from SARTM_REAL_DATA or beside the checkout; skips without it."""
    beside = Path(__file__).resolve().parent.parent.parent / 'shared' / 'data'
    folder = Path(os.environ.get('SARTM_REAL_DATA', beside))
    if not (folder / 'mfnet' / 'val.txt').is_file():
        pytest.skip(f'no real frames in {folder}; set SARTM_REAL_DATA to their folder')
    return folder
