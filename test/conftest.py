"""What every test shares: a quiet torch, and the real frames where they are at hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

# The images of the tests are small: a second thread waits for the first more than it helps, and
# beside the processes that some tests start it waits for them too.
torch.set_num_threads(1)

# A shell that starts the tests in its background leaves SIGINT ignored, and so would every process
# that the tests start and end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real frames, from SARTM_REAL_DATA or beside the checkout; skips without it."""
    beside = Path(__file__).resolve().parent.parent.parent / 'shared' / 'data'
    folder = Path(os.environ.get('SARTM_REAL_DATA', beside))
    if not (folder / 'mfnet' / 'val.txt').is_file():
        pytest.skip(f'no real frames in {folder}; set SARTM_REAL_DATA to their folder')
    return folder
