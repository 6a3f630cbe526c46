"""Pretraining on pseudo-labels of thermal images alone, and the run that starts from it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.class_transfer import replace_heads
from sartm_model.models.sartm import Sartm
from sartm_model.training.run import train

SEGFORMER = {'name': 'segformer', 'size': 'b0', 'modalities': ['thermal']}
SMALL = {'crop_height': 64, 'crop_width': 64, 'batch_size': 2, 'workers': 0}


@pytest.fixture(scope='module')
def pseudo_labels(tmp_path_factory):
    """Graph segments of thermal images without RGB, as `sartm pseudo-label` writes them."""
    pytest.importorskip('skimage', reason='needs scikit-image')
    root = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    (root / 'images').mkdir()
    for number in range(3):
        image = np.kron(rng.integers(40, 220, (4, 6)), np.ones((16, 16))) + rng.normal(
            0, 3, (64, 96)
        )
        cv2.imwrite(str(root / 'images' / f'{number}.png'), image.astype(np.uint8))
    images, out = str(root / 'images'), root / 'labels'
    assert main(['pseudo-label', '--source', 'graph', '--images', images, '--out', str(out)]) == 0
    return out / 'data.yaml'


@pytest.fixture
def configuration(tmp_path, pseudo_labels):
    """A function that writes the configuration of a pretraining; arguments replace settings."""

    def write(**values):
        source = {'dataset': 'folder', 'root': str(pseudo_labels)}
        settings = {
            'stage': 'pretrain',
            'model': SEGFORMER,
            'data': {'train': [source], 'val': {**source, 'split': 'train', 'frames': 1}, **SMALL},
            'steps': 2,
            'val_every': 2,
            'ema_decay': 0.0,
            'device': 'cpu',
        }
        path = tmp_path / 'pretrain.yaml'
        path.write_text(json.dumps({**settings, **values}))
        return path

    return write


def equal(one, other, keys):
    return all(torch.equal(one[key], other[key]) for key in keys)


def test_a_run_that_starts_from_a_pretrained_network_has_a_new_head(
    tmp_path, configuration, write_config, small_frames, capsys
):
    pretrained = train(configuration(), tmp_path / 'pretrain')
    earlier = checkpoints.load(pretrained)
    assert earlier.card['config']['stage'] == 'pretrain'
    assert earlier.card['config']['loss']['language'] == 0
    capsys.readouterr()
    source = {'dataset': 'mfnet', 'root': str(small_frames)}
    data = {'train': [source], 'val': {**source, 'split': 'val'}, **SMALL}
    config = write_config(start_from=str(pretrained), data=data, ema_decay=0.0)
    last = train(config, tmp_path / 'run', ['steps=1', 'optim.lr=1e-9'])
    printed = capsys.readouterr().out
    assert 'start anew' in printed
    assert 'decode_head.projections.0.weight' in printed
    found = checkpoints.load(last)
    assert found.label_space.classes == MFNET.classes
    for key, value in found.state.items():
        if key.startswith('encoder.'):
            torch.testing.assert_close(value, earlier.state[key], atol=1e-6, rtol=0)
        elif key.endswith('weight') and value.ndim == 4:
            assert value.shape != earlier.state[key].shape or not torch.allclose(
                value, earlier.state[key], atol=1e-3
            ), key


def test_pretraining_is_continued_with_its_heads(tmp_path, configuration):
    first = train(configuration(), tmp_path / 'first')
    second = train(configuration(start_from=str(first)), tmp_path / 'second', ['optim.lr=1e-9'])
    one, other = (checkpoints.load(path).state for path in (first, second))
    key = 'decode_head.classifier.weight'
    torch.testing.assert_close(one[key], other[key], atol=1e-6, rtol=0)


def test_the_thermal_path_of_sartm_is_pretrained_on_thermal_alone(tmp_path, configuration):
    """Nothing of RGB is touched, and there need be no RGB images."""
    data = json.loads(configuration().read_text())['data']
    model = {'size': 'nano', 'lora_rank': 2}
    config = configuration(model=model, data={**data, 'modality': 'thermal'})
    start = train(config, tmp_path / 'start', ['steps=1', 'optim.lr=1e-12'])
    last = train(config, tmp_path / 'run', ['optim.lr=1e-2'])
    before, after = (checkpoints.load(path).state for path in (start, last))
    of_rgb = [key for key in after if 'lora' in key and '.rgb.' in key]
    of_thermal = [key for key in after if 'lora_B' in key and '.thermal.' in key]
    assert of_rgb
    assert equal(before, after, of_rgb)
    assert of_thermal
    assert not any(torch.equal(before[key], after[key]) for key in of_thermal)
    torch.manual_seed(1)
    network = Sartm(ModelConfig(size='nano', lora_rank=2), len(MFNET))
    own = {key: value.clone() for key, value in network.state_dict().items()}
    anew = replace_heads(network, after)
    state = network.state_dict()
    names = {name for of_head in anew.values() for name in of_head}
    assert equal(state, own, names)
    assert equal(state, after, state.keys() - names)
    assert {name.partition('.')[0] for name in names} == {'mask_decoder', 'auxiliary_head'}


def test_frozen_layers_of_sam2_in_a_head_are_kept():
    torch.manual_seed(0)
    earlier, network = (Sartm(ModelConfig(size='tiny'), count) for count in (12, 9))
    replace_heads(network, earlier.state_dict())
    transformer = 'mask_decoder.masks.transformer.'
    state, other = network.state_dict(), earlier.state_dict()
    frozen = [key for key in state if key.startswith(transformer)]
    assert frozen
    assert equal(state, other, frozen)
    key = 'mask_decoder.position.positional_encoding_gaussian_matrix'
    assert torch.equal(state[key], other[key])


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'loss': {'language': 0.1}}, ('loss.language', 'stage pretrain')),
        ({'stage': 'finetune'}, ("stage is 'finetune'", 'train, pretrain')),
    ],
)
def test_what_a_stage_refuses(tmp_path, configuration, settings, words):
    with pytest.raises(SartmError) as error:
        train(configuration(**settings), tmp_path / 'run')
    assert all(word in str(error.value) for word in words)
