"""Two halves of the work at once give what one after the other gives."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.utils.parallel import ParallelRunner, TwoStreams


@pytest.fixture(scope='module')
def predictors(tmp_path_factory):
    path = save_untrained(tmp_path_factory.mktemp('parallel') / 'untrained.safetensors')
    return [Predictor(path, device='cpu', engine=engine) for engine in ('eager', 'parallel')]


def pair(height=96, width=128):
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize('given', ['both', 'rgb', 'thermal'])
@pytest.mark.parametrize('size', [(96, 128), (70, 101), (480, 640)])
def test_halves_give_what_the_whole_gives(predictors, given, size):
    rgb, thermal = pair(*size)
    images = (None if given == 'thermal' else rgb, None if given == 'rgb' else thermal)
    one, other = (predictor.predict(*images, confidence=True) for predictor in predictors)
    # Products of other shapes round in another order.
    assert (one.labels == other.labels).mean() > 0.999
    assert np.abs(one.confidence.astype(int) - other.confidence).max() <= 1


def test_the_probabilities_of_test_time_augmentation_are_the_same(predictors):
    one, other = (
        predictor.probabilities(inputs.rgb, inputs.thermal)
        for predictor in predictors
        for inputs in [predictor.inputs(*pair())]
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_they_run_at_once_without_gradients_and_the_threads_come_back():
    runner, threads = ParallelRunner(), torch.get_num_threads()
    meet = threading.Barrier(2, timeout=30)

    def work():
        meet.wait()  # in vain, unless the other comes too
        return torch.get_num_threads(), threading.get_ident()

    def other():
        return *work(), torch.is_inference_mode_enabled()

    (mine, here), (yours, there, inference) = runner(work, other)
    assert mine == yours == max(threads // 2, 1)
    assert here == threading.get_ident() != there
    assert inference
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize('failing', [0, 1])
def test_what_one_raises_is_raised_when_both_have_ended(failing):
    runner, threads, ended = ParallelRunner(), torch.get_num_threads(), []

    def fail():
        raise ValueError('this one')

    works = [lambda: ended.append(1)] * 2
    works[failing] = fail
    with pytest.raises(ValueError, match='this one'):
        runner(*works)
    assert ended == [1]
    assert torch.get_num_threads() == threads
    assert runner(lambda: 1, lambda: 2) == (1, 2)


def test_halves_are_for_a_cpu():
    with pytest.raises(SartmError, match="engine 'thirds' on cpu"):
        Predictor(device='cpu', engine='thirds')


class Streams:
    """Stands in for `torch.cuda`: writes down what is asked of its streams, and in which order."""

    def __init__(self, monkeypatch):
        self.log: list[tuple[str, ...]] = []
        self.current = self.Stream(self, 'usual')
        monkeypatch.setattr(torch.cuda, 'Stream', lambda device: self.Stream(self, 'other'))
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: self.current)
        monkeypatch.setattr(torch.cuda, 'stream', self.use)

    class Stream:
        def __init__(self, streams, name):
            self.streams, self.name = streams, name

        def wait_stream(self, stream):
            self.streams.log.append((self.name, 'waits for', stream.name))

    @contextmanager
    def use(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def work(self, name):
        self.log.append((self.current.name, 'does', name))
        return name


@pytest.fixture
def streams(monkeypatch):
    return Streams(monkeypatch)


def test_two_streams_part_and_meet(streams):
    both = TwoStreams(torch.device('cuda'))
    found = both(lambda: streams.work('this'), lambda: streams.work('that'))
    assert found == ('this', 'that')
    # 'that' is asked for first: what it lets go of, 'this' cannot be reading.
    assert streams.log == [
        ('other', 'waits for', 'usual'),
        ('other', 'does', 'that'),
        ('usual', 'does', 'this'),
        ('usual', 'waits for', 'other'),
    ]


@pytest.mark.parametrize('failing', [0, 1])
def test_two_streams_meet_though_one_fails(streams, failing):
    works = [lambda: streams.work('well')] * 2
    works[failing] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        TwoStreams(torch.device('cuda'))(*works)
    assert streams.log[-1] == ('usual', 'waits for', 'other')


def test_two_streams_give_what_halves_give(streams, predictors, tmp_path):
    path = save_untrained(tmp_path / 'untrained.safetensors')
    parted = Predictor(path, device='cpu', engine='eager')
    parted.network.model.enable_parallel(TwoStreams(torch.device('cuda')))
    for images in (pair(), pair(70, 101), (pair()[0], None)):
        one, other = (p.predict(*images, confidence=True) for p in (predictors[1], parted))
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.confidence, other.confidence)
    assert streams.log.count(('other', 'waits for', 'usual')) >= 3 * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')
@pytest.mark.parametrize('engine', ['eager', 'graph'])
def test_two_streams_on_a_gpu(engine):
    whole, parted = (
        Predictor('demo', device='cuda', precision='fp32', engine=engine) for _ in range(2)
    )
    parted.network.model.enable_parallel(TwoStreams(parted.device))
    for seed in range(20):  # a race would not show each time
        rng = np.random.default_rng(seed)
        rgb = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        one, other = (p.predict(rgb, rgb[..., 0]).labels for p in (whole, parted))
        assert (one == other).mean() > 0.99
