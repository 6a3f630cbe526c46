"""Batches of data sets, each with its own pair of modalities: weights, processes, resume."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import default_collate
from toy_model import ENTRY

from sartm_model.config import DataConfig, ModelConfig, SourceConfig, TrainConfig
from sartm_model.data.sampling import ResumableBatchSampler, TrainingSamples
from sartm_model.data.sources import label_space_of_run
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train

SIZE = 8
NETWORK = ('rgb', 'depth', 'event')
SPACE = LabelSpace('yard', ('a', 'b'), ((0, 0, 0), (9, 9, 9)))


@pytest.fixture(scope='module')
def sources(tmp_path_factory) -> list[SourceConfig]:
    """Two data sets with depth and one with events, of weights 3, 1 and 2."""
    made = []
    for name, x, weight in (('one', 'depth', 3.0), ('two', 'depth', 1.0), ('three', 'event', 2.0)):
        root = tmp_path_factory.mktemp(name)
        rng = np.random.default_rng(0)
        for folder in ('rgb', x, 'masks'):
            (root / folder).mkdir()
            for number in range(4):
                image = rng.integers(0, 2, (SIZE, SIZE), np.uint8)
                if folder == 'depth':
                    image = image.astype(np.uint16) + 4000
                cv2.imwrite(str(root / folder / f'{name}_{number}.png'), image)
        declaration = {
            'label_space': {'name': 'yard', 'names': ['a', 'b']},
            'images': {'rgb': 'rgb/{stem}.png', x: f'{x}/{{stem}}.png'},
            'labels': 'masks/{stem}.png',
            'splits': {'train': [f'{name}_{number}' for number in range(4)]},
        }
        (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
        path = str(root / 'data.yaml')
        made.append(SourceConfig('folder', path, 'train', weight, modalities=['rgb', x]))
    return made


def samples_of(sources, batch_size: int, processes: int = 1) -> TrainingSamples:
    config = DataConfig(
        train=sources, batch_size=batch_size, crop_height=SIZE, crop_width=SIZE, drop_modality=0.5
    )
    return TrainingSamples(config, SPACE, NETWORK, seed=7, processes=processes)


def batches(samples, rank: int = 0, processes: int = 1, first: int = 0, count: int = 6):
    """The samples of each batch of a process."""
    numbers = iter(ResumableBatchSampler(first, samples.config.batch_size, rank, processes))
    return [[samples[index] for index in next(numbers)] for _ in range(count)]


def same(one, other) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a.name == b.name
        and a.images.keys() == b.images.keys()
        and all(torch.equal(a.images[name], b.images[name]) for name in a.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.drop_mask, b.drop_mask)
        for a, b in pairs
    )


def test_a_batch_has_one_pair_and_pairs_come_by_weight(sources):
    samples = samples_of(sources, batch_size=4)
    pairs, names = Counter(), Counter()
    for batch in batches(samples, count=300):
        (pair,) = {tuple(sample.images) for sample in batch}
        pairs[pair] += 1
        names.update(sample.name.split('_')[0] for sample in batch)
    assert set(pairs) == {('rgb', 'depth'), ('rgb', 'event')}
    assert pairs['rgb', 'depth'] / 300 == pytest.approx(4 / 6, abs=0.08)
    assert names['one'] / (names['one'] + names['two']) == pytest.approx(3 / 4, abs=0.05)
    mixed = default_collate(batches(samples, count=1)[0])
    assert len(mixed.images) == 2


def test_a_sample_has_the_modalities_of_its_source_alone(tmp_path):
    """Also where the files hold more: MFNet's RGBA files, and a first image that gives the size."""
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    pixels = np.full((SIZE, SIZE, 4), 128, np.uint8)
    cv2.imwrite(str(tmp_path / 'images' / '1D.png'), pixels)
    cv2.imwrite(str(tmp_path / 'labels' / '1D.png'), pixels[..., 0] // 128)
    (tmp_path / 'train.txt').write_text('1D')
    declaration = {
        'label_space': 'mfnet',
        'images': {'rgb': 'images/{stem}.png', 'thermal': 'labels/{stem}.png'},
        'labels': 'labels/{stem}.png',
        'splits': {'train': ['1D']},
        'resize': True,
    }
    (tmp_path / 'data.yaml').write_text(yaml.safe_dump(declaration))
    folder = SourceConfig('folder', str(tmp_path / 'data.yaml'), modalities=['thermal'])
    mfnet = SourceConfig('mfnet', str(tmp_path), modalities=['rgb'])
    synthetic = SourceConfig('synthetic', frames=1, modalities=['rgb'])
    for sources in ([mfnet], [mfnet, synthetic], [folder]):
        config = DataConfig(train=sources, batch_size=4, crop_height=SIZE, crop_width=SIZE)
        samples = TrainingSamples(config, MFNET, ('rgb', 'thermal'), seed=0)
        for batch in batches(samples, count=4):
            assert list(default_collate(batch).images) == sources[0].modalities


def test_processes_divide_the_same_batches(sources):
    alone = batches(samples_of(sources, batch_size=6))
    for processes in (2, 3):
        samples = samples_of(sources, 6 // processes, processes)
        parts = [batches(samples, rank, processes) for rank in range(processes)]
        joined = [[s for part in step for s in part] for step in zip(*parts, strict=True)]
        assert all(same(*pair) for pair in zip(alone, joined, strict=True))


def test_a_resumed_run_goes_on_with_the_same_samples(sources):
    whole = batches(samples_of(sources, batch_size=3), count=8)
    resumed = batches(samples_of(sources, batch_size=3), first=5, count=3)
    assert all(same(*pair) for pair in zip(whole[5:], resumed, strict=True))


@pytest.mark.parametrize('modalities', [['rgb', 'depth'], ['rgb']])
def test_a_source_of_weight_0_is_not_opened_and_changes_no_sample(sources, tmp_path, modalities):
    gone = SourceConfig('folder', str(tmp_path / 'gone'), weight=0, modalities=modalities)
    every = [gone, *sources]
    found = batches(samples_of(every, batch_size=3), count=8)
    assert all(map(same, found, batches(samples_of(sources, batch_size=3), count=8)))
    model = ModelConfig(name='toy', modalities=NETWORK)
    run = TrainConfig(model=model, data=DataConfig(train=every))
    assert label_space_of_run(run).classes == SPACE.classes


def test_the_mask_is_of_the_networks_modalities(sources):
    for samples in batches(samples_of(sources, batch_size=4), count=10):
        batch = default_collate(samples)
        mask = batch.full_drop_mask(NETWORK)
        assert mask.shape == (4, 3)
        absent = 2 if 'depth' in batch.images else 1
        assert not mask[:, absent].any()
        assert torch.equal(mask[:, [0, 3 - absent]], batch.drop_mask)


def test_modalities_that_do_not_fit_are_refused(sources):
    model = ModelConfig(name='toy', modalities=('rgb', 'depth'))
    with pytest.raises(SartmError, match=r"modalities of folder is 'event'; .* rgb, depth$"):
        TrainConfig(model=model, data=DataConfig(train=sources))
    wrong = SourceConfig('folder', sources[0].root, modalities=['rgb', 'event'])
    with pytest.raises(SartmError, match=r'has no event images; training needs RGB and event'):
        samples_of([wrong], 1)
    samples = samples_of(sources[:1], 1)
    with pytest.raises(SartmError, match=r'has the modalities rgb, depth; expected .* of event$'):
        TrainingSamples(samples.config, SPACE, ('event',), seed=0)


def test_a_joint_run_learns_from_pairs_of_different_sensors(sources, tmp_path, monkeypatch):
    """Stopped and resumed, it ends with the weights of a run that was not stopped."""
    monkeypatch.setitem(registry.MODELS, 'toy', ENTRY)
    given = [asdict(source) for source in sources]
    config = {
        'model': {'name': 'toy', 'size': '', 'modalities': list(NETWORK)},
        'data': {
            'train': given,
            'val': given[0],
            'more_val': given[2:],
            'crop_height': SIZE,
            'crop_width': SIZE,
            'batch_size': 2,
            'workers': 0,
            'drop_modality': 0.5,
        },
        'steps': 8,
        'val_every': 2,
        'device': 'cpu',
    }
    (tmp_path / 'joint.yaml').write_text(yaml.safe_dump(config))
    whole = train(tmp_path / 'joint.yaml', tmp_path / 'whole')
    with monkeypatch.context() as patch:
        step = SegmentationTraining.training_step

        def stop_in_step_5(self, batch, index):
            if self.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, batch, index)

        patch.setattr(SegmentationTraining, 'training_step', stop_in_step_5)
        with pytest.raises(SystemExit):
            train(tmp_path / 'joint.yaml', tmp_path / 'parts')
    assert torch.load(tmp_path / 'parts' / 'last.ckpt', weights_only=True)['global_step'] == 6
    resumed = train(tmp_path / 'joint.yaml', tmp_path / 'parts', resume=True)
    one, other = (checkpoints.load(path).state for path in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    header = (tmp_path / 'whole' / 'metrics.csv').read_text().splitlines()[0].split(',')
    assert {'val_miou', 'val_miou/folder', 'val_miou/folder_2'} <= set(header)
