"""Adapters files: extracted from a checkpoint and applied to SAM2's weights again."""

from __future__ import annotations

import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.adapters import apply, extract
from sartm_model.models.sartm.sam2_weights import load_sam2, sam2_state


@pytest.fixture(scope='module')
def trained(tmp_path_factory, sam2_file):
    """A checkpoint on `sam2_file` all of whose own weights have moved."""
    model = Sartm(ModelConfig(size='tiny'), len(MFNET))
    load_sam2(model, sam2_file)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    path = tmp_path_factory.mktemp('trained') / 'best.safetensors'
    checkpoints.save(path, model, MFNET, {'note': 'moved'})
    return path


def test_adapters_and_sam2_make_the_checkpoint_again(tmp_path, trained, sam2_file):
    extract(trained, tmp_path / 'adapters.safetensors')
    before = checkpoints.load(trained)
    apply(tmp_path / 'adapters.safetensors', sam2_file, tmp_path / 'again.safetensors')
    after = checkpoints.load(tmp_path / 'again.safetensors')
    assert (after.config, after.card) == (before.config, before.card)
    assert after.state.keys() == before.state.keys()
    assert all(torch.equal(after.state[name], value) for name, value in before.state.items())
    # The encoder alone has 27 million weights of four bytes.
    assert (tmp_path / 'adapters.safetensors').stat().st_size < trained.stat().st_size / 5


def test_other_sam2_weights_are_refused(tmp_path, trained):
    extract(trained, tmp_path / 'adapters.safetensors')
    torch.manual_seed(2)
    torch.save({'model': sam2_state('tiny')}, tmp_path / 'other.pt')
    with pytest.raises(SartmError, match='other SAM2 weights'):
        apply(tmp_path / 'adapters.safetensors', tmp_path / 'other.pt', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_adapters_are_no_checkpoint_and_a_checkpoint_no_adapters(tmp_path, trained, sam2_file):
    extract(trained, tmp_path / 'adapters.safetensors')
    with pytest.raises(SartmError, match="format 'sartm-adapters-2'"):
        checkpoints.load(tmp_path / 'adapters.safetensors')
    with pytest.raises(SartmError, match="expected 'sartm-adapters-2'"):
        apply(trained, sam2_file, tmp_path / 'out')


def test_nano_has_nothing_to_leave_out(tmp_path):
    with pytest.raises(SartmError, match='nano'):
        extract(save_untrained(tmp_path / 'nano.safetensors'), tmp_path / 'out')
