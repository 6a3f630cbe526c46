"""A training run from its configuration to the checkpoints, and what stops it."""

from __future__ import annotations

import csv
import json
from importlib import metadata

import cv2
import numpy as np
import pytest
import torch
import yaml
from mfnet_frames import write_frames
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sartm_model.config import load_train_config
from sartm_model.data import sources
from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.data.sampling import balanced_weights
from sartm_model.data.transforms import network_inputs
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train


def test_a_run_leaves_a_checkpoint_that_learned(tmp_path, write_config):
    config = write_config(steps=2)
    last = train(config, tmp_path / 'out', ['optim.lr=0.01', 'ema_decay=0'])
    assert last == tmp_path / 'out' / 'last.safetensors'
    written = load_train_config(tmp_path / 'out' / 'config.yaml')
    assert written.optim.lr == 0.01
    loaded = checkpoints.load(last)
    assert loaded.card['steps'] == 2
    assert loaded.card['versions'] == {
        'sartm': metadata.version('sartm_ros'),
        'torch': torch.__version__,
    }
    # LoRA's B starts at zero: anything else was learned.
    learned = [key for key, value in loaded.state.items() if 'lora_B' in key and value.any()]
    assert any('rgb' in key for key in learned)
    assert any('thermal' in key for key in learned)
    again = train(config, tmp_path / 'more', ['steps=1', f'start_from={last}'])
    assert checkpoints.load(again).config == loaded.config


def test_the_frames_are_not_copied_with_the_averaged_weights(tmp_path, write_config, monkeypatch):
    """Those of a large data set would take seconds and much memory."""
    copied = []
    monkeypatch.setattr(FrameDataset, '__deepcopy__', lambda *_: copied.append(1), raising=False)
    train(write_config(), tmp_path / 'run', ['steps=1', 'val_every=1', 'ema_decay=0.5'])
    assert not copied


def test_the_measured_weights_are_the_saved_ones(tmp_path, small_frames, write_config):
    """The mIoU in the card of the best model is that of the model in the file."""
    config = write_config(steps=3, val_every=3, optim={'lr': 0.01})
    train(config, tmp_path / 'run')
    best = checkpoints.load(tmp_path / 'run' / 'best.safetensors')
    model = checkpoints.build(best, merged=False).eval()
    frames = open_dataset('mfnet', small_frames, 'val')
    frames.names = frames.names[:2]

    @torch.no_grad()
    def predict(frame):
        images = {name: torch.from_numpy(image) for name, image in frame.images.items()}
        probabilities = model.segment(network_inputs(images))
        return FramePrediction(probabilities[0].argmax(dim=0).numpy().astype(np.uint8))

    assert best.card['val_miou'] == pytest.approx(evaluate(predict, frames)['miou'], rel=1e-5)


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
        ({}, ['data.drop_modality.depth=0.1'], "'depth'; expected one of rgb, thermal"),
        ({}, ['data.paste_objects=-1'], 'paste_objects'),
        ({}, ['data.modality=lidar'], 'expected one of both'),
        ({}, ['loss.auxiliary=0'], 'the head auxiliary is not trained'),
        ({}, ['sam2_weights=a', 'start_from=b'], 'starts from one of them'),
        ({}, ['label_space=fmb', 'loss.language=0'], 'classes of mfnet'),
        ({}, ['loss.class_weights=[1,2]'], 'one a class of mfnet'),
        *[
            (
                {},
                [f'precision={name}'],
                rf"precision is '{name}'; expected one of auto, 32-true, bf16",
            )
            for name in ('fp16', 'bf16-true', '16-true')
        ],
        ({}, ['start_from=/nowhere.safetensors'], 'no checkpoint'),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, write_config, values, overrides, fault):
    with pytest.raises(SartmError, match=fault):
        train(write_config(**values), tmp_path / 'out', overrides)
    assert not list(tmp_path.rglob('*.safetensors'))


def test_a_missing_or_broken_configuration_is_named(tmp_path):
    with pytest.raises(SartmError, match='no configuration file'):
        load_train_config(tmp_path / 'none.yaml')
    broken = tmp_path / 'broken.yaml'
    broken.write_text('steps: [1')
    with pytest.raises(SartmError, match=r'broken\.yaml'):
        load_train_config(broken)


@pytest.mark.parametrize(
    ('device', 'gpu', 'bf16', 'expected'),
    [
        ('auto', False, False, '32-true'),
        ('cpu', True, True, '32-true'),
        ('auto', True, True, 'bf16-mixed'),
        ('cuda', True, False, '16-mixed'),
    ],
)
def test_automatic_precision_is_one_that_the_device_has_hardware_for(
    tmp_path, write_config, monkeypatch, device, gpu, bf16, expected
):
    def lightning(**options):
        raise SartmError(f'precision {options["precision"]}')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    # A GPU without bfloat16 emulates it.
    supported = {True: True, False: bf16}
    monkeypatch.setattr(
        torch.cuda, 'is_bf16_supported', lambda including_emulation: supported[including_emulation]
    )
    monkeypatch.setattr('pytorch_lightning.Trainer', lightning)
    with pytest.raises(SartmError, match=f'precision {expected}'):
        train(write_config(device=device), tmp_path / 'run')


def test_half_precision_and_early_stopping(tmp_path, write_config, monkeypatch):
    """A run whose mIoU does not rise above the first one ends after `patience` measurements."""
    figures = {'miou': 10.0, 'per_class_iou': {}}
    monkeypatch.setattr(ConfusionMatrix, 'compute', lambda *_: figures)
    config = write_config(steps=9, val_every=1, patience=2, precision='bf16-mixed')
    last = train(config, tmp_path / 'run')
    loaded = checkpoints.load(last)
    assert loaded.card['steps'] == 3
    events = EventAccumulator(str(tmp_path / 'run' / 'events')).Reload()
    assert events.Tags()['images'] == ['val/1D', 'val/2D']
    # RGB, thermal, labels and prediction beside each other, at every measurement.
    assert [(p.height, p.width) for p in events.Images('val/1D')] == [(64, 4 * 96)] * 3
    assert all(value.isfinite().all() for value in loaded.state.values())


def test_balanced_weights_are_those_of_the_class_frequencies(
    tmp_path, small_frames, write_config, capsys
):
    """Of two sources, each counts by its weight."""
    synthetic = {'dataset': 'synthetic', 'split': 'train', 'frames': 2, 'weight': 1}
    mfnet = {'dataset': 'mfnet', 'root': str(small_frames), 'weight': 3}
    shares = np.zeros(9)
    names = (small_frames / 'train.txt').read_text().split()
    files = [cv2.imread(str(small_frames / 'labels' / f'{n}.png'), -1) for n in names]
    generated = open_dataset('synthetic', None, 'train')
    scenes = [generated[index].labels for index in range(2)]
    for images, weight in ((files, 0.75), (scenes, 0.25)):
        for number in range(9):
            shares[number] += weight * np.mean([image == number for image in images])
    assert (shares == 0).any()  # such a class may be rare, and its pixels not among the counted
    rarest = min(share for share in shares if share)
    weights = [float((shares.max() / (share or rarest)) ** 0.5) for share in shares]
    assert len(set(weights)) > 3

    def trained(name, **loss):
        path = write_config(steps=1, val_every=1, loss=loss)
        sources = json.dumps([mfnet, synthetic])
        return checkpoints.load(train(path, tmp_path / name, [f'data.train={sources}'])).state

    balanced = trained('balanced', class_balance=0.5)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith('class weights: ')]
    printed = dict(item.rsplit(' ', 1) for item in line.partition(': ')[2].split(', '))
    assert list(printed) == list(generated.label_space.classes)
    assert [float(value) for value in printed.values()] == pytest.approx(weights, rel=6e-3)
    given = trained('given', class_weights=weights)
    equal = trained('equal')
    for name, value in given.items():
        torch.testing.assert_close(balanced[name], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(equal[name], value) for name, value in balanced.items())


def test_without_a_labelled_pixel_all_classes_weigh_alike():
    assert balanced_weights(np.zeros(3), 0.5) == [1, 1, 1]


def test_every_term_is_logged_and_a_weight_of_zero_switches_it_off(tmp_path, write_config):
    def terms(**loss):
        config = write_config(loss=loss, model={'prediction': 'mask'}, steps=2)
        out = tmp_path / f'auxiliary_{loss["auxiliary"]}'
        train(config, out)
        with (out / 'metrics.csv').open() as file:
            row = {key: float(value) for key, value in next(csv.DictReader(file)).items() if value}
        return {key: row[key] for key in row if key not in ('epoch', 'step', 'lr')}

    # Of the second step: at the first there is no prototype yet.
    every = terms(auxiliary=0.5, prototype=3.0, language=2.0)
    assert set(every) == {'loss', 'mask', 'auxiliary', 'prototype', 'language'}
    assert every['prototype'] > 0.01
    weighted = every['mask'] + 0.5 * every['auxiliary']
    weighted += 3 * every['prototype'] + 2 * every['language']
    assert every['loss'] == pytest.approx(weighted, rel=1e-5)
    assert set(terms(auxiliary=0, prototype=0, language=0)) == {'loss', 'mask'}


def test_a_run_on_one_modality_does_not_train_the_other(tmp_path, write_config):
    config = write_config(steps=2, optim={'lr': 1e-3}, ema_decay=0.0)
    state = checkpoints.load(train(config, tmp_path / 'run', ['data.modality=rgb'])).state
    learned = [name for name, value in state.items() if 'lora_B' in name and value.any()]
    assert learned
    assert all('rgb' in name for name in learned)


def test_a_loss_that_is_not_finite_names_the_frames(tmp_path, write_config, monkeypatch):
    nan = torch.tensor(torch.nan, requires_grad=True)
    monkeypatch.setattr('sartm_model.training.loss_table.ohem_cross_entropy', lambda *_, **__: nan)
    with pytest.raises(SartmError, match=r'loss is nan at step 1, on \S+, \S+;'):
        train(write_config(), tmp_path / 'run')


def test_an_error_in_a_worker_process_is_one_line(tmp_path, write_config):
    labels = {name: np.zeros((64, 96), np.uint8) for name in ('1N', '2N')}
    root = write_frames(tmp_path / 'mfnet', labels)
    cv2.imwrite(str(root / 'labels' / '2N.png'), np.full((64, 96), 77))
    overrides = [f'data.train=[{{dataset: mfnet, root: {root}}}]', 'data.workers=1']
    with pytest.raises(SartmError, match=r'2N\.png.*77') as caught:
        train(write_config(), tmp_path / 'run', overrides)
    assert '\n' not in str(caught.value)


def test_frames_without_labels_are_no_source(tmp_path, write_config, small_frames):
    path = tmp_path / 'data.yaml'
    images = {part: f'{small_frames}/{part}/{{stem}}.*' for part in ('rgb', 'thermal')}
    declared = {'label_space': 'mfnet', 'images': images, 'splits': {'all': ['1D', '2D']}}
    path.write_text(yaml.safe_dump(declared))
    override = f'data.train=[{{dataset: folder, root: {path}, split: all}}]'
    with pytest.raises(SartmError, match=r'frames of folder \S+ all have no labels, so nothing'):
        train(write_config(), tmp_path / 'run', [override])


@pytest.mark.parametrize('part', ['train', 'val'])
def test_labels_that_are_all_255_stop_the_run_before_it_starts(tmp_path, write_config, part):
    labels = {name: np.full((64, 96), 255, np.uint8) for name in ('1D', '2D', '3N', '4N', '5N')}
    root = write_frames(tmp_path / 'mfnet', labels)
    source = f'{{dataset: mfnet, root: {root}, split: {part}, frames: 0}}'
    override = f'data.train=[{source}]' if part == 'train' else f'data.val={source}'
    expected = rf'no pixel of mfnet \S+ {part} is labelled: .* all 5 frames \(1D, .* are 255'
    with pytest.raises(SartmError, match=expected):
        train(write_config(), tmp_path / 'run', [override])
    assert not (tmp_path / 'run' / 'metrics.csv').exists()
    # One labelled pixel in the last frame is enough to learn from.
    labels['5N'][0, 0] = 1
    labelled = write_frames(tmp_path / 'labelled', labels)
    override = override.replace(str(root), str(labelled))
    train(write_config(), tmp_path / 'other', [override, 'steps=1'])


def test_a_frame_that_cannot_be_measured_stops_the_run_before_its_first_step(
    tmp_path, write_config, monkeypatch
):
    labels = {name: np.ones((64, 96), np.uint8) for name in ('1D', '2D')}
    root = write_frames(tmp_path / 'mfnet', labels)
    mask = root / 'labels' / '2D.png'
    mask.write_bytes(mask.read_bytes()[:40])
    steps = []
    monkeypatch.setattr(SegmentationTraining, 'training_step', lambda *_: steps.append(1))
    with pytest.raises(SartmError, match=r'2D\.png cannot be read'):
        train(write_config(), tmp_path / 'run', [f'data.val={{dataset: mfnet, root: {root}}}'])
    assert not steps


class PartlyLabelled(FrameDataset):
    """Two frames, the second of which has no labels."""

    label_space = MFNET
    names = ('a', 'b')

    def __getitem__(self, index):
        labels = None if index else np.ones((64, 64), np.uint8)
        images = {'rgb': np.zeros((64, 64, 3), np.uint8), 'thermal': np.zeros((64, 64), np.uint8)}
        return Frame(self.names[index], images, labels)


@pytest.mark.parametrize('part', ['data.train', 'data.val'])
def test_a_frame_without_labels_among_others_is_named(tmp_path, write_config, monkeypatch, part):
    original = sources.open_dataset

    def open_dataset(name, root, split):
        return PartlyLabelled() if split == 'partly' else original(name, root, split)

    monkeypatch.setattr(sources, 'open_dataset', open_dataset)
    source = '{dataset: mfnet, split: partly}'
    override = f'data.train=[{source}]' if part == 'data.train' else f'data.val={source}'
    with pytest.raises(SartmError, match='frame b has no labels'):
        train(write_config(), tmp_path / 'run', [override])
