"""What `sartm_model` offers by itself, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ('code', 'loaded'),
    [
        ('import sartm_model', 'False False'),
        ('from sartm_model import LabelSpace', 'True False'),
        ('from sartm_model import Predictor', 'True True'),
    ],
)
def test_a_name_is_imported_when_it_is_first_used(code, loaded):
    code += '\nimport sys\nprint("numpy" in sys.modules, "torch" in sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == loaded


def test_a_name_that_does_not_exist_is_an_error():
    with pytest.raises(ImportError, match='Predicter'):
        from sartm_model import Predicter  # noqa: F401
