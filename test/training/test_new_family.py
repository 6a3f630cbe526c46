"""A network of another family, which the package does not know, through all that it offers."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from toy_model import ENTRY, Toy

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig
from sartm_model.inference.open_predictor import open_predictor
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.class_transfer import transfer_classes
from sartm_model.models.registry import MODELS
from sartm_model.training.loss_table import LossTerm, loss_terms


@pytest.fixture
def toy(monkeypatch):
    """Register the family; nothing else of the package is changed."""
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    return {'name': 'toy'}


def untrained(path, config, seed=0, label_space=MFNET):
    torch.manual_seed(seed)
    model = Toy(ModelConfig(**config), len(label_space))
    checkpoints.save(path, model, label_space, {})
    return path, model.eval()


def pair(height=60, width=90):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.integers(0, 256, (height, width), dtype=np.uint8)


def test_it_is_trained_evaluated_and_described(toy, tmp_path, small_frames, write_config, capsys):
    config = write_config(model=toy, steps=60, val_every=60, ema_decay=0.5, optim={'lr': 0.02})
    run = tmp_path / 'run'
    assert main(['train', '--config', str(config), '--out', str(run)]) == 0
    # One head, whose loss has the weight 1, and no terms on a feature map that it does not have.
    header = (run / 'metrics.csv').read_text().splitlines()[0].split(',')
    assert {'loss', 'main'} <= set(header)
    assert not {'mask', 'auxiliary', 'prototype', 'language'} & set(header)
    best = str(run / 'best.safetensors')
    evaluated = ['--dataset', 'mfnet', '--root', str(small_frames), '--split', 'val']
    figures = tmp_path / 'figures.json'
    assert main(['evaluate', '--checkpoint', best, *evaluated, '--json', str(figures)]) == 0
    # The grey value of a pixel gives its class away; one class everywhere gives 3 %.
    assert json.loads(figures.read_text())['miou'] > 15
    capsys.readouterr()
    assert main(['info', best]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['model']['name'] == 'toy'
    assert described['parameters']['classifier'] == 9 * (16 + 1)
    assert main(['benchmark', '--checkpoint', best, '--iterations', '1', '--device', 'cpu']) == 0
    assert 'network' in json.loads(capsys.readouterr().out)['stages_ms']


@torch.no_grad()
@pytest.mark.parametrize('threads', [1, 2])
def test_it_is_served(toy, tmp_path, threads, request):
    """Labels and probabilities at a size that its strides do not divide."""
    if threads == 2:
        request.getfixturevalue('two_threads')
    path, model = untrained(tmp_path / 'toy.safetensors', {**toy, 'input_scale': 0.5})
    rgb, thermal = pair()
    predictor = Predictor(path, device='cpu')
    inputs = predictor.preprocess(rgb, thermal).images
    features = 0
    for name, image in inputs.items():
        small = F.interpolate(image, size=(30, 45), mode='bilinear')
        padded = F.pad(small, (0, 3, 0, 2), mode='replicate')
        stem = model.stems[name]
        features += F.conv2d(padded, stem.weight, stem.bias, stride=8)
    logits = model.classifier(features.relu())
    # One logit covers 16 pixels of the image; rows and columns beyond it are padding.
    full = F.interpolate(logits, scale_factor=16, mode='bilinear')[..., :60, :90]
    expected = full.softmax(dim=1)[0]
    torch.testing.assert_close(predictor.probabilities(inputs), expected, atol=1e-5, rtol=0)
    clear = expected.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-4
    found = predictor.predict(rgb, thermal).labels
    assert (found == expected.argmax(dim=0).numpy())[clear.numpy()].all()
    assert len(np.unique(found)) > 1


def test_it_is_exported(toy, tmp_path):
    pytest.importorskip('onnxruntime', reason='needs onnxruntime')
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    path, _ = untrained(tmp_path / 'toy.safetensors', toy)
    onnx = tmp_path / 'toy.onnx'
    size = ['--height', '60', '--width', '90']
    assert main(['export', '--checkpoint', str(path), '--out', str(onnx), *size]) == 0
    predictor, exported = Predictor(path, device='cpu'), open_predictor(onnx, device='cpu')
    rgb, thermal = pair()
    for images in ((rgb, thermal), (rgb, None), (None, thermal)):
        labels = predictor.predict(*images).labels
        assert (exported.predict(*images).labels == labels).mean() > 0.999
        assert len(np.unique(labels)) > 1


def test_a_run_with_other_classes_starts_from_it(toy):
    torch.manual_seed(0)
    earlier, model = (Toy(ModelConfig(**toy), count) for count in (2, 3))
    transfer = transfer_classes(model, ('b', 'c', 'a'), earlier.state_dict(), ('a', 'b'))
    assert transfer == (['b', 'a'], ['c'], [])
    assert torch.equal(model.classifier.weight[[2, 0]], earlier.classifier.weight)
    assert torch.equal(model.stems['rgb'].weight, earlier.stems['rgb'].weight)


def test_a_term_of_the_loss_is_one_entry(toy, tmp_path, write_config, monkeypatch):
    def logit_size(inputs):
        return inputs.output.logits['main'].square().mean()

    def with_one_more(*args):
        return [*loss_terms(*args), LossTerm('logit_size', logit_size, 0.5)]

    monkeypatch.setattr('sartm_model.training.module.loss_terms', with_one_more)
    config = write_config(model=toy, steps=1, val_every=1)
    assert main(['train', '--config', str(config), '--out', str(tmp_path / 'run')]) == 0
    with (tmp_path / 'run' / 'metrics.csv').open() as file:
        row = next(csv.DictReader(file))
    assert float(row['logit_size']) > 0
    expected = float(row['main']) + 0.5 * float(row['logit_size'])
    assert float(row['loss']) == pytest.approx(expected, rel=1e-5)


def fault(capsys):
    """The one line of the error."""
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'model': {'name': 'unet'}}, ("'unet'", 'expected one of sartm, segformer, segrgbx, toy')),
        ({'loss': {'prototype': 1.0}}, ('loss.prototype', 'toy')),
        ({'sam2_weights': 'sam2.pt'}, ('sam2_weights', 'toy')),
        ({'model': {'name': 'toy', 'prediction': 'mask'}}, ("'mask'", 'mean, main')),
        ({'model': {'size': 'huge'}}, ("'huge'", 'nano')),
        ({'model': {'modalities': ['rgb']}}, ('model.modalities', "['rgb']")),
        ({'model': {'modalities': ['rgb', 'radar']}}, ("'radar'", 'one of rgb, thermal')),
        ({'model': {'name': 'toy', 'modalities': ['radar']}}, ("'radar'", 'one of rgb, thermal')),
    ],
)
def test_what_a_family_refuses_leaves_no_folder(
    toy, tmp_path, write_config, capsys, settings, words
):
    config = write_config(**{'model': toy, **settings})
    assert main(['train', '--config', str(config), '--out', str(tmp_path / 'run')]) == 2
    line = fault(capsys)
    assert all(word in line for word in words), line
    assert not (tmp_path / 'run').exists()


def test_a_checkpoint_of_a_family_that_is_not_registered(toy, tmp_path, capsys, monkeypatch):
    path, _ = untrained(tmp_path / 'toy.safetensors', toy)
    monkeypatch.delitem(MODELS, 'toy')
    assert main(['info', str(path)]) == 2
    line = fault(capsys)
    assert str(path) in line
    assert "'toy'; expected one of sartm" in line


def test_a_checkpoint_without_a_name_is_of_sartm(nano_checkpoint, tmp_path):
    """Files of format sartm-2 that were written before there were names."""
    older = tmp_path / 'older.safetensors'
    state = checkpoints.load(nano_checkpoint).state
    with safe_open(nano_checkpoint, framework='pt') as file:
        metadata = file.metadata()
    settings = json.loads(metadata['model'])
    assert settings.pop('name') == 'sartm'
    save_file(state, older, {**metadata, 'model': json.dumps(settings)})
    assert checkpoints.load(older).config == checkpoints.load(nano_checkpoint).config
