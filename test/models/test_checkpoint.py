"""Checkpoints: round trips, earlier versions, and errors for files that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from untrained_checkpoint import save_untrained

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET, PST900, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import model_class
from sartm_model.models.sartm import Sartm


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return Sartm(ModelConfig(prediction='mask'), len(PST900)).eval()


@pytest.fixture(scope='module')
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'model.safetensors'
    checkpoints.save(path, model, PST900, {'data': 'none'})
    return path


def rewrite(source, target, change, metadata=None):
    """A copy of a checkpoint with its weights changed by `change`."""
    state = load_file(source)
    change(state)
    with safe_open(source, framework='pt') as file:
        save_file(state, target, {**file.metadata(), **(metadata or {})})
    return target


@torch.no_grad()
def test_round_trip(model, saved):
    loaded = checkpoints.load(saved)
    assert loaded.config == model.config
    assert loaded.label_space == PST900
    assert loaded.card == {'data': 'none'}
    again = checkpoints.build(loaded, merged=False)
    images = {'rgb': torch.randn(1, 3, 32, 64)}
    torch.testing.assert_close(again(images).logits['mask'], model(images).logits['mask'])
    assert [path.name for path in saved.parent.iterdir()] == ['model.safetensors']


def test_the_inference_form_cannot_be_saved(saved, tmp_path):
    """In a family without adapters, too, whose head it changes."""
    pytest.importorskip('transformers', reason='needs transformers')
    segformer = ModelConfig(name='segformer', size='b0', modalities=('rgb',))
    path = tmp_path / 'segformer.safetensors'
    checkpoints.save(path, model_class('segformer')(segformer, len(PST900)), PST900, {})
    for source in (saved, path):
        model = checkpoints.build(checkpoints.load(source))
        with pytest.raises(ValueError, match='inference form'):
            checkpoints.save(tmp_path / 'again.safetensors', model, PST900, {})


def test_missing_and_unexpected_and_misshapen_weights_are_named(saved, tmp_path):
    def spoil(state):
        state['auxiliary_head.classifier.extra'] = torch.zeros(1)
        del state['auxiliary_head.classifier.bias']
        state['missing_modality_embedding.0'] = torch.zeros(2, 3)

    path = rewrite(saved, tmp_path / 'spoiled.safetensors', spoil)
    with pytest.raises(SartmError) as caught:
        checkpoints.build(checkpoints.load(path))
    for name in (
        'lacks auxiliary_head.classifier.bias',
        'classifier.extra',
        'missing_modality_embedding.0 [2, 3]',
    ):
        assert name in str(caught.value)


def test_missing_adapter_is_named(saved, tmp_path):
    name = 'encoder.trunk.blocks.0.attn.qkv.q.lora_A.thermal.weight'
    path = rewrite(saved, tmp_path / 'noadapter.safetensors', lambda state: state.pop(name))
    with pytest.raises(SartmError, match=r'blocks\.0\.attn\.qkv\.q\.lora_A\.thermal'):
        checkpoints.build(checkpoints.load(path))


def test_unusable_files_say_what_was_expected(saved, tmp_path):
    whole = saved.read_bytes()
    truncated = tmp_path / 'truncated.safetensors'
    truncated.write_bytes(whole[: len(whole) // 2])
    pickled = tmp_path / 'pickled.safetensors'
    torch.save({'weights': torch.zeros(2)}, pickled)
    empty = tmp_path / 'empty.safetensors'
    empty.touch()
    exported = tmp_path / 'exported.onnx'
    exported.write_bytes(b'\x08\x08\x12\x07pytorch')
    foreign = tmp_path / 'foreign.safetensors'
    save_file({'a': torch.zeros(1)}, foreign)
    labels = {'labels': json.dumps({'name': 'x', 'classes': ['a'], 'colors': []})}
    misfit = rewrite(saved, tmp_path / 'misfit.safetensors', lambda state: None, labels)
    for path, fault in (
        (tmp_path / 'nothing.safetensors', 'no checkpoint'),
        (truncated, 'damaged'),
        (empty, 'damaged'),
        (pickled, 'pickled'),
        (exported, 'is an exported file'),
        (foreign, 'format None'),
        (misfit, 'damaged metadata'),
    ):
        with pytest.raises(SartmError, match=fault) as caught:
            checkpoints.build(checkpoints.load(path))
        assert '\n' not in str(caught.value)


def test_label_space_of_another_size_does_not_fit(saved, tmp_path):
    labels = {'labels': json.dumps(MFNET.to_dict())}
    path = rewrite(saved, tmp_path / 'other.safetensors', lambda state: None, labels)
    with pytest.raises(SartmError, match='does not fit the model'):
        checkpoints.build(checkpoints.load(path))


def test_label_space_checks():
    with pytest.raises(SartmError, match='twice'):
        LabelSpace('x', ('a', 'a'), ((0, 0, 0), (1, 1, 1)))
    assert LabelSpace.from_dict(MFNET.to_dict()) == MFNET
    palette = MFNET.palette()
    assert palette.shape == (256, 3)
    assert tuple(palette[2]) == MFNET.colors[2]
    assert (palette[len(MFNET) :] == 255).all()


@pytest.mark.parametrize('background_id', [0, 1, None])
def test_the_background_is_stored(tmp_path, background_id):
    space = LabelSpace('own', ('a', 'b'), ((0, 0, 0), (1, 1, 1)), background_id)
    path = save_untrained(tmp_path / 'own.safetensors', space)
    assert checkpoints.load(path).label_space == space


def test_a_checkpoint_without_a_background_id_has_class_0_as_background(saved, tmp_path):
    labels = {name: value for name, value in MFNET.to_dict().items() if name != 'background_id'}
    texts = {'labels': json.dumps(labels)}
    path = rewrite(saved, tmp_path / 'old.safetensors', lambda state: None, texts)
    assert checkpoints.load(path).label_space.background_id == 0


@pytest.mark.parametrize('background_id', [2, -1])
def test_a_background_outside_of_the_classes_is_refused(background_id):
    with pytest.raises(SartmError, match='expected an id of its classes, 0 to 1, or null'):
        LabelSpace('own', ('a', 'b'), ((0, 0, 0), (1, 1, 1)), background_id)


def test_deployed_path_needs_nothing_that_only_training_does(saved):
    """A process that predicts never imports what only training needs."""
    code = (
        'import sys, numpy as np\n'
        'from sartm_model.inference.predictor import Predictor\n'
        f'p = Predictor({str(saved)!r}, device="cpu")\n'
        'print(p.predict(np.zeros((32, 32, 3), np.uint8), None).labels.shape)\n'
        'bad = {"peft", "open_clip", "torchvision", "transformers", "pytorch_lightning", "rclpy"}\n'
        'bad &= set(sys.modules)\n'
        'sys.exit(str(bad) if bad else 0)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(np.zeros((32, 32)).shape)
