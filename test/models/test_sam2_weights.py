"""Loading SAM2's weights: both versions, fine-tuned files, and files that are refused."""

from __future__ import annotations

import pytest
import torch

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.sam2_weights import load_sam2, sam2_state


@pytest.fixture(scope='module')
def weights(sam2_tiny):
    return sam2_tiny.state_dict()


@pytest.fixture(scope='module')
def model():
    return Sartm(ModelConfig(size='tiny'), 9)


def saved(path, content):
    torch.save(content, path)
    return path


def test_weights_of_sam2_load(tmp_path, model):
    load_sam2(model, saved(tmp_path / 'tiny.pt', {'model': sam2_state('tiny', 'sam2')}))


def test_a_file_of_fine_tuning_loads(tmp_path, model, weights):
    """It has the optimiser's state beside the weights, whose names DDP prefixed."""
    optimizer = {'state': {0: {'exp_avg': torch.zeros(2)}}, 'param_groups': [{'lr': 1e-4}]}
    renamed = {f'module.{key}': value for key, value in weights.items()}
    content = {'model': renamed, 'optimizer': optimizer, 'epoch': 3, 'best_meter_values': {}}
    with torch.no_grad():
        model.encoder.trunk.pos_embed.zero_()
    load_sam2(model, saved(tmp_path / 'checkpoint.pt', content))
    expected = weights['image_encoder.trunk.pos_embed']
    torch.testing.assert_close(model.encoder.trunk.pos_embed.detach(), expected)


def test_weights_that_do_not_fit_are_named(tmp_path, model, weights, sam2_file):
    token = 'sam_mask_decoder.iou_token.weight'
    lacking = {key: value for key, value in weights.items() if key != token}
    half_prefixed = {**lacking, f'module.{token}': weights[token]}
    for content, fault in (
        ({'model': lacking}, rf'lacks {token}'),
        ({'model': {**weights, 'surplus': torch.zeros(1)}}, 'unexpected surplus'),
        ({'model': half_prefixed}, rf'lacks {token}; it has unexpected module\.{token}'),
        ({'model': {**weights, token: torch.zeros(1, 2)}}, rf'{token} \[1, 2\] instead of'),
    ):
        with pytest.raises(SartmError, match=fault):
            load_sam2(model, saved(tmp_path / 'tiny.pt', content))
    with pytest.raises(SartmError, match=r'as sam2\.1 small does not fit'):
        load_sam2(Sartm(ModelConfig(size='small'), 9), sam2_file)


def test_other_files_are_refused(tmp_path, model):
    path = tmp_path / 'tiny.pt'
    for content in ({'weights': {}}, {'model': 'large'}, {'model': {'epoch': 3}}, [1]):
        with pytest.raises(SartmError, match=r"holds .* in an entry 'model'"):
            load_sam2(model, saved(path, content))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SartmError, match='cannot be read'):
        load_sam2(model, path)
    with pytest.raises(SartmError, match='no SAM2 checkpoint'):
        load_sam2(model, tmp_path / 'nothing.pt')
    with pytest.raises(SartmError, match='nano has no SAM2 weights'):
        load_sam2(Sartm(ModelConfig(), 9), path)


def test_a_file_that_would_run_code_is_refused(tmp_path, model):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / 'executed'), 'w'))

    with pytest.raises(SartmError, match='cannot be read'):
        load_sam2(model, saved(tmp_path / 'evil.pt', {'model': Payload()}))
    assert not (tmp_path / 'executed').exists()
