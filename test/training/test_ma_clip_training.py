"""MA-CLIP: its loss and prompts, its training, and the training of a network with it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from small_clip import register

from sartm_model.cli.main import main
from sartm_model.training.ma_clip.loss import contrastive_loss
from sartm_model.training.ma_clip.prompts import prompt_words

# The loss ----------------------------------------------------------------------------------------


def loss_in_loops(images, texts, own, scale):
    """The formula, with the positives of an image and of a prompt counted one by one."""
    similarity = [
        [scale * sum(a * b for a, b in zip(image, text, strict=True)) for text in texts]
        for image in images
    ]
    of_images = 0.0
    for row, prompt in zip(similarity, own, strict=True):
        of_images -= math.log(math.exp(row[prompt]) / sum(math.exp(s) for s in row))
    of_texts = 0.0
    for prompt in range(len(texts)):
        column = [row[prompt] for row in similarity]
        total = sum(math.exp(s) for s in column)
        positives = [s for s, its in zip(column, own, strict=True) if its == prompt]
        of_texts -= sum(math.log(math.exp(s) / total) for s in positives) / len(positives)
    return (of_images / len(images) + of_texts / len(texts)) / 2


@pytest.mark.parametrize('own', [[0, 1, 2], [0, 0, 1, 0, 2, 1], [0, 0, 0]])
def test_loss_against_loops(own):
    rng = np.random.default_rng(len(own))
    unit = [
        F.normalize(torch.from_numpy(rng.normal(size=(count, 5))), dim=1)
        for count in (len(own), max(own) + 1)
    ]
    found = contrastive_loss(*unit, torch.tensor(own), scale=7.0)
    expected = loss_in_loops(unit[0].tolist(), unit[1].tolist(), own, 7.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_with_a_prompt_an_image_it_is_the_loss_of_clip():
    loss = pytest.importorskip('open_clip.loss', reason='needs open_clip')
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    expected = loss.ClipLoss()(images, texts, torch.tensor(14.0))
    torch.testing.assert_close(contrastive_loss(images, texts, torch.arange(6), 14.0), expected)


def test_images_of_one_prompt_are_no_negatives_of_each_other():
    """Two prompts, and images that are exactly theirs: nothing is left to learn."""
    texts = torch.eye(2)
    own = torch.tensor([0, 0, 0, 1])
    found = contrastive_loss(texts[own], texts, own, scale=100.0)
    # The three images of the first prompt share its probability.
    assert found.item() == pytest.approx(math.log(3) / 2 / 2, abs=1e-5)


# Prompts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (('thermal', 'mfnet', 'night'), 'thermal image of a street at night'),
        (('rgb', 'mfnet', 'day'), 'colour image of a street by day'),
        (
            ('event', 'deliver', 'fog+motionblur'),
            'event camera image of a street in fog with motion blur',
        ),
        (('hha', 'nyuv2_hha', None), 'colour-coded depth image of a room'),
        (('depth', 'folder', 'dawn'), 'depth image of a place dawn'),
    ],
)
def test_words_of_an_image(image, words):
    assert prompt_words(*image, {}) == words


def test_words_that_are_given_replace_those():
    words = {'thermal': 'infrared', 'folder': 'a mine', 'night': 'in the dark'}
    assert (
        prompt_words('thermal', 'folder', 'night', words) == 'infrared image of a mine in the dark'
    )


# The commands ------------------------------------------------------------------------------------


SCENES = {'dataset': 'synthetic', 'frames': 4, 'frames_seed': 0}


def write_config(folder, **values):
    """A configuration of either stage, on generated scenes; `values` replace settings."""
    settings = {
        'model': {'name': 'segrgbx', 'size': 'b0', 'modalities': ['rgb', 'thermal']},
        'data': {
            'train': [SCENES],
            'val': {**SCENES, 'split': 'val', 'frames': 2},
            'crop_height': 64,
            'crop_width': 64,
            'batch_size': 4,
            'workers': 0,
        },
        'ma_clip': {'model': 'small-test', 'pretrained': 'random', 'rank': 2},
        'optim': {'lr': 1e-3},
        'steps': 3,
        'val_every': 3,
        'ema_decay': 0.0,
        'device': 'cpu',
    }
    (folder / 'train.yaml').write_text(yaml.safe_dump(settings | values))
    return folder / 'train.yaml'


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    """What the command trains in a few steps."""
    pytest.importorskip('open_clip', reason='needs open_clip')
    folder = tmp_path_factory.mktemp('adapters')
    register(folder)
    config = write_config(folder, stage='ma_clip')
    assert main(['train', '--config', str(config), '--out', str(folder / 'run')]) == 0
    return folder / 'run' / 'ma_clip.safetensors'


def test_a_network_is_trained_with_it(adapters, tmp_path, capsys):
    command = ['train', '--config', str(write_config(tmp_path)), '--out', str(tmp_path / 'run')]
    assert main([*command, f'ma_clip.adapters={adapters}']) == 0
    capsys.readouterr()
    assert main(['info', str(tmp_path / 'run' / 'last.safetensors')]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['model']['ma_clip']['model'] == 'small-test'
    assert described['parameters']['ma_clip'] > 0
