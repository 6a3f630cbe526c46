"""`patch_torchvision_ops` with a torchvision that is broken, whole, missing, or installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# As in torchvision: a submodule loads, then an operator that does not exist is registered.
BROKEN = (
    'import torch\n'
    'from . import extension\n'
    'import torchvision.extension\n'
    "torch.library.register_fake('torchvision::nms')(lambda *a: torchvision.extension.kept)\n"
    "torch.library.register_fake('torchvision::qnms')(lambda *a: None)\n"
)


def run(code, path):
    """Run code in a process of its own, with `path` before the installed packages."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join((str(path), str(ROOT)))}
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=environment,
        capture_output=True,
        text=True,
    )


def stand_in(folder, code):
    package = folder / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text(code)
    (package / 'extension.py').write_text('kept = 1\n')
    return folder


def test_missing_operators_are_declared(tmp_path):
    broken = stand_in(tmp_path, BROKEN)
    assert 'operator torchvision::nms does not exist' in run('import torchvision', broken).stderr
    done = run(
        'from sartm_model.utils.torchvision_patch import patch_torchvision_ops\n'
        'patch_torchvision_ops()\n'
        'patch_torchvision_ops()\n'
        'import torchvision\n'
        'patch_torchvision_ops()\n',
        broken,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(('package', 'error'), [('', ''), ("raise OSError('no PIL')", 'no PIL')])
def test_what_is_whole_or_fails_otherwise_is_left_alone(tmp_path, package, error):
    done = run(
        'from sartm_model.utils.torchvision_patch import patch_torchvision_ops\n'
        'patch_torchvision_ops()\n'
        'import sys\n'
        "assert 'torch' not in sys.modules\n"  # without torch, no operator is declared
        'import torchvision\n',
        stand_in(tmp_path, package),
    )
    assert (done.returncode != 0) == bool(error), done.stderr
    assert error in done.stderr


def test_without_torchvision_nothing_happens(tmp_path):
    done = run(
        'import sys\n'
        'import sartm_model.utils.torchvision_patch as guard\n'
        'guard.find_spec = lambda name: None\n'
        'guard.patch_torchvision_ops()\n'
        "sys.exit('torchvision' in sys.modules or 'torch' in sys.modules)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # other tests import the same, but after each other in one process
@pytest.mark.skipif(
    find_spec('torchvision') is None or find_spec('open_clip') is None,
    reason='torchvision and open_clip are not both installed; make setup installs them',
)
def test_with_the_installed_torchvision(tmp_path):
    """The network with adapters, and what trains it, beside whatever torchvision is here."""
    done = run(
        'from sartm_model.config import ModelConfig\n'
        'from sartm_model.models.sartm import Sartm\n'
        'Sartm(ModelConfig(), 9)\n'
        'import sartm_model.training.module, open_clip\n',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
