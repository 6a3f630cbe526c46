"""Settings and fixtures of all tests. Nothing heavy is imported before a test needs it."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from sartm_model.cli.main import PLUGIN_GROUP

# Read when torch is imported. The tests share the cores with each other and with the processes that
# they start: a thread that spins while it waits would take a core from those that work.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# A shell that starts the tests in the background lets them ignore SIGINT. Child processes inherit
# that, and several tests end their child processes with SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    """Give torch one thread, because `make test` runs one process of tests on each core.

    Tests of what the CPU engine does with several threads use the fixture `two_threads`.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def two_threads(one_thread) -> Iterator[None]:
    """Give torch two threads, with which 'auto' selects the parallel CPU engine, for one test."""
    import torch

    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real frames, from SARTM_REAL_DATA or beside the checkout; skips without it."""
    beside = Path(__file__).resolve().parent.parent.parent / 'shared' / 'data'
    folder = Path(os.environ.get('SARTM_REAL_DATA', beside))
    if not (folder / 'mfnet' / 'val.txt').is_file():
        pytest.skip(f'no real frames in {folder}; set SARTM_REAL_DATA to their folder')
    return folder


@pytest.fixture(scope='session')
def nano_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of a nano network with random weights; tests must not change the file."""
    from untrained_checkpoint import save_untrained

    return save_untrained(tmp_path_factory.mktemp('checkpoint') / 'nano.safetensors')


@pytest.fixture(scope='session')
def demo_onnx(tmp_path_factory) -> Path:
    """The shipped checkpoint as `sartm export` writes it, once for all processes of the tests."""
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    from sartm_model.cli.main import main

    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:  # this process has a folder inside the common one
        folder = folder.parent
    path = folder / 'demo.onnx'
    with (folder / 'demo.onnx.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            assert main(['export', '--out', str(path)]) == 0
    return path


@pytest.fixture(scope='session')
def bag_verbs() -> None:
    """Fail if the installed package does not add the verbs of bags to the `sartm` command."""
    names = {entry.name for entry in entry_points(group=PLUGIN_GROUP)}
    if not {'make-bag', 'replay'} <= names:
        pytest.fail(
            f'the installed package has no entry points {PLUGIN_GROUP} for make-bag and replay: it '
            'was installed before setup.py named them; run make setup, or pip install --no-deps '
            '--no-build-isolation --editable .'
        )
