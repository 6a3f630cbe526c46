"""Running independent parts of the network in parallel gives what one after the other gives."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch

from sartm_model.inference.cuda_graph import prepare_for_graph
from sartm_model.inference.predictor import Predictor
from sartm_model.utils.parallel import CudaStreams, ParallelRunner


@pytest.fixture(scope='module')
def predictors(nano_checkpoint):
    return [
        Predictor(nano_checkpoint, device='cpu', engine=engine) for engine in ('eager', 'parallel')
    ]


def pair(height=96, width=128):
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize('modality', ['both', 'rgb', 'thermal'])
@pytest.mark.parametrize('size', [(96, 128), (70, 101), (480, 640)])
def test_parallel_gives_what_eager_gives(predictors, modality, size):
    rgb, thermal = pair(*size)
    images = (None if modality == 'thermal' else rgb, None if modality == 'rgb' else thermal)
    eager, parallel = (predictor.predict(*images, confidence=True) for predictor in predictors)
    # Products of other shapes are rounded in another order.
    assert (eager.labels == parallel.labels).mean() > 0.999
    assert np.abs(eager.confidence.astype(int) - parallel.confidence).max() <= 1


def test_the_probabilities_of_test_time_augmentation_are_the_same(predictors):
    eager, parallel = (
        predictor.probabilities(inputs.images)
        for predictor in predictors
        for inputs in [predictor.preprocess(*pair())]
    )
    torch.testing.assert_close(eager, parallel, atol=1e-4, rtol=0)


INTERRUPTED = """
import threading
from unittest import mock
from sartm_model.utils import parallel

class Interrupted(parallel.Barrier):
    def wait(self):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return super().wait()

with mock.patch.object(parallel, 'Barrier', Interrupted):
    try:
        parallel.ParallelRunner()
    except KeyboardInterrupt:
        print('interrupted')
"""


def test_ctrl_c_while_the_threads_start_leaves_none_for_which_python_would_wait():
    done = subprocess.run(
        [sys.executable, '-c', INTERRUPTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 'interrupted\n', '')


@pytest.mark.usefixtures('two_threads')
def test_functions_run_in_parallel_without_gradients_on_half_of_the_threads():
    meet = threading.Barrier(2, timeout=30)

    def work():
        meet.wait()  # raises unless the other function comes too
        return torch.get_num_threads(), threading.get_ident(), torch.is_inference_mode_enabled()

    (threads, first, inference), (other_threads, second, other_inference) = ParallelRunner()(
        work, work
    )
    assert threads == other_threads == 1
    assert first != second
    assert inference
    assert other_inference


@pytest.mark.usefixtures('two_threads')
def test_the_number_of_threads_of_others_does_not_change(nano_checkpoint):
    """Not the caller's, and not that of a thread that first uses torch amid a prediction."""
    predictor = Predictor(nano_checkpoint, device='cpu')
    assert predictor.engine == 'parallel'
    forward_logits = predictor.pipeline.model.forward_logits
    amid = []

    with ThreadPoolExecutor(1) as other_node:

        def first_use(images):
            result = predictor.pipeline.model.runner(
                lambda: other_node.submit(torch.get_num_threads).result(), torch.get_num_threads
            )
            amid.append((*result, torch.get_num_threads()))
            return forward_logits(images)

        predictor.pipeline.model.forward_logits = first_use
        predictor.predict(*pair())
        # Of the other node's thread, of a half, and of the runner's thread between them.
        assert amid == [(2, 1, 1)]
        assert other_node.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize('failing', [0, 1])
def test_what_one_raises_is_raised_when_both_have_ended(failing):
    runner, ended = ParallelRunner(), []
    failed = threading.Event()

    def fail():
        failed.set()
        raise ValueError('this one')

    def work():
        assert failed.wait(timeout=30)
        ended.append(1)

    works = [work, work]
    works[failing] = fail
    with pytest.raises(ValueError, match='this one'):
        runner(*works)
    assert ended == [1]
    assert runner(lambda: 1, lambda: 2) == (1, 2)


@pytest.mark.usefixtures('two_threads')
def test_what_is_run_may_call_the_runner_in_turn():
    runner = ParallelRunner()

    def work():
        return threading.get_ident(), torch.get_num_threads(), runner(lambda: 1, lambda: 2)

    thread, threads, results = runner.run(work)
    assert thread != threading.get_ident()
    assert (threads, results) == (1, (1, 2))
    with pytest.raises(ZeroDivisionError):
        runner.run(lambda: 1 / 0)


class FakeStream:
    """Knows which work has ended for what is launched on it next."""

    def __init__(self):
        self.ended = set()

    def wait_stream(self, other):
        self.ended |= other.ended


@pytest.fixture
def fake_streams(monkeypatch):
    """Lets `CudaStreams` be made without a GPU: each of its streams does the work at once.

    Returns:
        The current stream, last, and those below it.
    """
    stack = [FakeStream()]

    @contextmanager
    def use(stream):
        stack.append(stream)
        yield
        stack.pop()

    monkeypatch.setattr(torch.cuda, 'Stream', lambda device: FakeStream())
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: stack[-1])
    monkeypatch.setattr(torch.cuda, 'stream', use)
    return stack


@pytest.mark.parametrize('fails', [False, True])
def test_work_on_streams_begins_after_what_was_launched_and_ends_before_what_follows(
    fake_streams, fails
):
    runner = CudaStreams(torch.device('cuda'))
    launched_on = []

    def work(name):
        stream = fake_streams[-1]
        assert 'before' in stream.ended
        stream.ended.add(name)
        launched_on.append(stream)
        if fails and name == 'first':
            raise ValueError('this one')
        return name

    current = fake_streams[-1]
    current.ended.add('before')
    for names in (['first', 'second', 'third'], ['first', 'fourth']):
        launched_on.clear()
        works = [partial(work, name) for name in names]
        if fails:
            with pytest.raises(ValueError, match='this one'):
                runner(*works)
        else:
            assert runner(*works) == tuple(names)
        assert len(set(launched_on)) == len(names)
        assert launched_on[-1] is current
        assert current.ended >= set(names)


@pytest.mark.usefixtures('fake_streams')
def test_streams_give_what_parallel_gives(nano_checkpoint, predictors):
    streams = Predictor(nano_checkpoint, device='cpu', engine='eager')
    streams.pipeline.model.enable_parallel(CudaStreams(torch.device('cuda')))
    for images in (pair(), pair(70, 101), (pair()[0], None)):
        one, other = (p.predict(*images, confidence=True) for p in (predictors[1], streams))
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.confidence, other.confidence)


@pytest.mark.usefixtures('fake_streams')
@pytest.mark.parametrize('size', [(96, 128), (70, 101)])
def test_a_network_prepared_for_a_graph_gives_what_the_others_give(nano_checkpoint, size):
    eager, prepared = (
        Predictor(nano_checkpoint, device='cpu', engine=engine) for engine in ('eager', 'graph')
    )
    prepare_for_graph(prepared.pipeline.model, torch.device('cuda'))
    assert isinstance(prepared.pipeline.model.runner, CudaStreams)
    rgb, thermal = pair(*size)
    for images in ((rgb, thermal), (rgb, None), (None, thermal)):
        one, other = (p.predict(*images, confidence=True) for p in (eager, prepared))
        assert (one.labels == other.labels).mean() > 0.999  # rounded in another order
        assert np.abs(one.confidence.astype(int) - other.confidence).max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')
@pytest.mark.parametrize('engine', ['eager', 'graph'])
def test_streams_on_a_gpu(engine):
    one_stream, streams = (
        Predictor('demo', device='cuda', precision='fp32', engine=engine) for _ in range(2)
    )
    one_stream.pipeline.model.runner = None
    streams.pipeline.model.enable_parallel(CudaStreams(streams.device))
    for seed in range(20):  # a race would not show each time
        rng = np.random.default_rng(seed)
        rgb = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        one, other = (p.predict(rgb, rgb[..., 0]).labels for p in (one_stream, streams))
        assert (one == other).mean() > 0.99
