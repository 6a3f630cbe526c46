"""Training: the loss against loops, the samples, and a run from configuration to checkpoint."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
import yaml

from sartm_model.config import DataConfig, load_train_config
from sartm_model.data.augmentation import augment
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.losses import ohem_cross_entropy


def ohem_by_loops(logits, labels, probability, min_fraction, weights):
    """Eq. 11 a pixel at a time, in float64."""
    losses = []
    for b, y, x in np.ndindex(*labels.shape):
        if labels[b, y, x] != 255:
            column = logits[b, :, y, x].astype(np.float64)
            label = labels[b, y, x]
            losses.append((np.log(np.exp(column).sum()) - column[label], weights[label]))
    losses.sort(reverse=True)
    hard = [(loss, weight) for loss, weight in losses if loss > -math.log(probability)]
    least = max(1, int(len(losses) * min_fraction))
    chosen = hard if len(hard) >= least else losses[:least]
    return sum(w * loss for loss, w in chosen) / sum(w for _, w in chosen)


@pytest.mark.parametrize('confidence', [0.5, 6.0])
def test_ohem_equals_loops(confidence):
    """With confident logits few pixels are hard, and the floor of N / 16 decides."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 9, 11))
    logits = rng.normal(size=(2, 4, 9, 11)).astype(np.float32)
    np.put_along_axis(logits, labels[:, None], confidence, axis=1)
    labels[rng.random(labels.shape) < 0.2] = 255
    for weights in (None, torch.tensor([1.0, 2.0, 5.0, 0.5])):
        found = ohem_cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(labels), class_weights=weights
        )
        by_class = [1.0] * 4 if weights is None else weights.tolist()
        wanted = ohem_by_loops(logits, labels, 0.7, 1 / 16, by_class)
        # float32's rounding of logits of 6, over losses of a hundredth.
        assert found.item() == pytest.approx(wanted, rel=1e-4)


def test_ohem_without_labels_is_zero_and_differentiable():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = ohem_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_ohem_gradient():
    logits = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (1, 3, 3))
    # Finite differences in float32, which the loss is computed in: hence the wide tolerance.
    assert torch.autograd.gradcheck(
        lambda x: ohem_cross_entropy(x, labels), logits, eps=1e-3, atol=2e-3
    )


def gradient_frame() -> Frame:
    """Every image holds the pixel's column (and the labels its half), so geometry can be read."""
    columns = np.tile(np.arange(200, dtype=np.uint8), (120, 1))
    return Frame('x', np.repeat(columns[..., None], 3, 2), columns, (columns >= 100).astype('u1'))


def test_augmentation_moves_all_images_alike_and_colour_is_rgbs_alone():
    config = DataConfig(crop_height=64, crop_width=96, drop_modality=0.5)
    drop_masks = set()
    for seed in range(40):
        sample = augment(gradient_frame(), config, np.random.default_rng(seed))
        assert sample.rgb.shape == (64, 96, 3)
        assert sample.thermal.shape == (64, 96)
        # Where the crop leaves the frame the images are mirrored: that is left out.
        labelled = (sample.labels != 255).numpy().astype('u1')
        inner = cv2.erode(
            labelled, np.ones((15, 15)), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        # Thermal is a ramp over the frame, never jittered: its value tells the source column.
        scaled = sample.thermal.float()
        inside = torch.from_numpy(inner > 0) & (scaled > 0.02) & (scaled < 0.98)
        # The range's percentiles are taken of every fourth column: of 0, 4, ... 196.
        column = 196 * (0.01 + 0.98 * scaled)
        clear = inside & ((column - 99.5).abs() > 3)
        assert ((column > 99.5) == (sample.labels == 1))[clear].all()
        # RGB was jittered, but never falls where thermal rises.
        valid = torch.from_numpy(inner[:, 1:] > 0)
        agree = sample.rgb[..., 0].int().diff(dim=1) * scaled.diff(dim=1)
        assert (agree[valid] >= -1e-3).all()
        drop_masks.add(tuple(sample.drop_mask.tolist()))
    assert drop_masks == {(False, False), (True, False), (False, True)}


def test_outside_of_the_frame_the_images_are_mirrored_and_the_labels_ignored():
    config = DataConfig(crop_height=160, crop_width=240, scale_min=0.5, scale_max=0.5)
    bright = np.full((120, 200), 250, np.uint8)
    frame = Frame('x', np.repeat(bright[..., None], 3, 2), bright, np.ones_like(bright))
    sample = augment(frame, config, np.random.default_rng(0))
    # A frame of 120x200 halved fills 60x100 of the crop.
    assert (sample.labels == 1).sum() == pytest.approx(60 * 100, rel=0.05)
    assert (sample.labels == 255).sum() == 160 * 240 - (sample.labels == 1).sum()
    assert sample.rgb.amax() == sample.rgb.amin()


def frame_with_a_cone() -> Frame:
    """All background but for 8x6 pixels of class 7 in a corner, where both images are bright."""
    labels = np.zeros((240, 320), np.uint8)
    labels[200:208, 300:306] = 7
    image = np.where(labels > 0, 220, 40).astype(np.uint8)
    return Frame('cone', np.repeat(image[..., None], 3, 2), image, labels)


def test_an_object_crop_holds_an_object():
    small = {'crop_height': 32, 'crop_width': 32, 'scale_min': 1.0, 'scale_max': 1.0}
    rng = np.random.default_rng(0)

    def with_cone(config):
        return sum(
            bool((augment(frame_with_a_cone(), config, rng).labels == 7).any()) for _ in range(40)
        )

    assert with_cone(DataConfig(object_crop=1.0, **small)) == 40
    assert with_cone(DataConfig(object_crop=0.0, **small)) < 20
    # A frame without objects has nothing to lay a crop on.
    bare = Frame(
        'bare', *(np.zeros(shape, np.uint8) for shape in ((99, 99, 3), (99, 99), (99, 99)))
    )
    assert not augment(bare, DataConfig(object_crop=1.0, **small), rng).labels.any()


def test_pasted_objects_come_with_both_images_and_their_labels():
    config = DataConfig(
        crop_height=64, crop_width=64, scale_min=1.0, scale_max=1.0, object_crop=1.0
    )
    ramp = np.tile(np.arange(100, 180, dtype=np.uint8), (240, 4))
    plain = Frame('x', np.repeat(ramp[..., None], 3, 2), ramp, np.zeros_like(ramp))
    pasted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sample = augment(plain, config, rng, frame_with_a_cone())
        cone = sample.labels == 7
        assert set(sample.labels.unique().tolist()) <= {0, 7}
        if cone.any():
            pasted += 1
            # The cone is its frame's warmest part, the top of the thermal range and beyond.
            assert sample.thermal[cone].mean() > sample.thermal[~cone].mean() + 0.1
            assert sample.rgb[cone].float().mean() > sample.rgb[~cone].float().mean()
    assert 10 <= pasted <= 30  # each class is taken or left with equal chance


def write_config(tmp_path, **values):
    path = tmp_path / 'train.yaml'
    tiny = {
        'steps': 2,
        'val_every': 2,
        'device': 'cpu',
        'loss': {'language': 0},
        'data': {
            'train': [{'dataset': 'synthetic'}],
            'val': {'split': 'val', 'frames': 1},
            'crop_height': 32,
            'crop_width': 64,
            'batch_size': 2,
            'workers': 0,
        },
    }
    path.write_text(yaml.safe_dump({**tiny, **values}))
    return path


def test_a_run_leaves_a_checkpoint_that_learned(tmp_path):
    from sartm_model.training.run import train

    last = train(write_config(tmp_path), tmp_path / 'out', ['optim.lr=0.01', 'ema_decay=0'])
    assert last == tmp_path / 'out' / 'last.safetensors'
    first = load_train_config(tmp_path / 'out' / 'config.yaml')
    assert first.optim.lr == 0.01
    loaded = checkpoints.load(last)
    assert loaded.card['steps'] == 2
    # LoRA's B starts at zero: anything else was learned.
    grown = [key for key, value in loaded.state.items() if 'lora_B' in key and value.any()]
    assert any('rgb' in key for key in grown)
    assert any('thermal' in key for key in grown)
    again = train(write_config(tmp_path), tmp_path / 'more', [f'start_from={last}'])
    assert checkpoints.load(again).config == loaded.config


@pytest.mark.parametrize(
    ('values', 'overrides', 'fault'),
    [
        ({'stepz': 1}, [], 'stepz'),
        ({}, ['optim.lr=fast'], 'fast'),
        ({}, ['optim.lr'], 'key=value'),
        ({}, ['model.size=huge'], 'expected one of nano'),
        ({}, ['model.lora_rank=0'], 'lora_rank'),
        ({}, ['label_space=moon'], 'label_space'),
        ({}, ['data.drop_modality=2'], 'probability'),
        ({}, ['data.paste_objects=-1'], 'paste_objects'),
        ({}, ['data.modality=lidar'], 'expected one of both'),
        ({}, ['loss.auxiliary=0'], 'head 2 is not trained'),
        ({}, ['sam2_weights=a', 'start_from=b'], 'starts from one of them'),
        ({}, ['label_space=fmb'], 'classes of mfnet'),
        ({}, ['loss.class_weights=[1,2]'], 'one a class of mfnet'),
        ({}, ['start_from=/nowhere.safetensors'], 'no checkpoint'),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, values, overrides, fault):
    from sartm_model.training.run import train

    with pytest.raises(SartmError, match=fault):
        train(write_config(tmp_path, **values), tmp_path / 'out', overrides)
    assert not list(tmp_path.rglob('*.safetensors'))


def test_a_missing_or_broken_configuration_is_named(tmp_path):
    with pytest.raises(SartmError, match='no configuration file'):
        load_train_config(tmp_path / 'none.yaml')
    broken = tmp_path / 'broken.yaml'
    broken.write_text('steps: [1')
    with pytest.raises(SartmError, match=r'broken\.yaml'):
        load_train_config(broken)


def test_throughput_of_every_stage_and_of_the_loader(tmp_path, capsys):
    from benchmarks.training_loader import main

    arguments = ['--config', str(write_config(tmp_path)), '--samples', '2', '--workers', '0']
    assert main([*arguments, '--set', 'data.thermal_noise=0.1']) == 0
    *stages, loader = map(json.loads, capsys.readouterr().out.splitlines())
    names = ['read', 'crop', 'colour and faults', 'to tensors', 'collate', 'one process']
    assert [stage['stage'] for stage in stages] == names
    assert stages[-1]['ms'] == pytest.approx(sum(stage['ms'] for stage in stages[:-1]), abs=0.05)
    assert loader['workers'] == 0
    step = 1e3 * 2 / loader['samples_per_s']  # of a batch of two
    assert loader['keeps_up_with_step_ms'] == pytest.approx(step, rel=0.05)
