"""Cached frames: the same samples, each frame read once, errors of the processes that read."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from mfnet_frames import write_frames
from torch.utils.data import DataLoader

from sartm_model.config import DataConfig, SourceConfig
from sartm_model.data.base import FrameDataset
from sartm_model.data.cached import CachedFrames
from sartm_model.data.frame import Frame
from sartm_model.data.sampling import TrainingSamples
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    labels = {f'{i}D': rng.integers(0, 9, (40, 60), np.uint8) for i in range(7)}
    return write_frames(tmp_path / 'mfnet', labels)


RUN = (MFNET, ('rgb', 'thermal'))


@pytest.mark.parametrize('workers', [0, 2])
def test_samples_with_the_cache_are_those_without(frames, workers):
    sources = [
        SourceConfig('mfnet', str(frames), frames=5, weight=0.6),
        SourceConfig('synthetic', frames=2, weight=0.4),
    ]
    crops = {'crop_height': 32, 'crop_width': 48, 'paste_objects': 0.5, 'workers': workers}
    plain = TrainingSamples(DataConfig(train=sources, **crops), *RUN, seed=3)
    cached = TrainingSamples(DataConfig(train=sources, cache=True, **crops), *RUN, seed=3)
    # The files are not read again, not even by the workers of a loader.
    expected = [plain[i] for i in range(12)]
    for path in frames.glob('rgb/*'):
        path.unlink()
    loader = DataLoader(cached, batch_size=None, sampler=range(12), num_workers=workers)
    found = list(loader)
    assert {sample.name for sample in found} > {'000000_000000'}  # both sources
    for one, other in zip(expected, found, strict=True):
        assert one.name == other.name
        for name, image in one.images.items():
            assert image.equal(other.images[name])
        assert one.labels.equal(other.labels)
        assert one.drop_mask.equal(other.drop_mask)


def test_an_unreadable_frame_is_named(frames):
    (frames / 'rgb' / '6D.png').write_bytes(b'no image')
    config = DataConfig(train=[SourceConfig('mfnet', str(frames))], cache=True)
    with pytest.raises(SartmError, match=r'6D\.png cannot be read'):
        TrainingSamples(config, *RUN, seed=0)


class CountsCopies(FrameDataset):
    """A data set that counts how often it is sent to a process."""

    label_space = MFNET
    names = [str(index) for index in range(100)]  # noqa: RUF012
    sent = 0

    def __getitem__(self, index: int) -> Frame:
        return Frame(self.names[index], {'rgb': np.full((2, 2, 3), index, np.uint8)})

    def __reduce__(self):
        type(self).sent += 1
        return CountsCopies, ()


def test_the_data_set_is_not_sent_to_a_process_again_with_each_part_of_its_frames():
    frames = CachedFrames(CountsCopies(), 2, 'yard')
    assert [frames[index].images['rgb'][0, 0, 0] for index in range(100)] == list(range(100))
    assert CountsCopies.sent <= 2


class KilledReader(FrameDataset):
    """A data set that kills the process that reads its second frame."""

    label_space = MFNET
    names = ('a', 'b')

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __getitem__(self, index: int) -> Frame:
        if index == 1 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return Frame('a', {'rgb': np.zeros((8, 8, 3), np.uint8)})


def test_a_killed_process_is_an_error_and_not_a_wait():
    with pytest.raises(SartmError, match='frames of yard was killed; if memory ran out'):
        CachedFrames(KilledReader(), 2, 'yard')
