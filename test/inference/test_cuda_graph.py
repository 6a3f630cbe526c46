"""The engine 'graph': its fixed buffers on a CPU, and the graph itself where there is a GPU."""

from __future__ import annotations

import weakref
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sartm_model.data.transforms import to_input
from sartm_model.inference import cuda_graph
from sartm_model.inference.cuda_graph import CudaGraph
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities.thermal_range import scale_thermal
from sartm_model.modalities.thermal_settings import ThermalSettings

DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device'),
    ),
]


@pytest.fixture(params=DEVICES)
def both(request, nano_checkpoint, monkeypatch):
    """A predictor of each engine, eager and graph."""
    # Two algorithms that round to 10 bits would differ on many pixels of an untrained network.
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    return [
        Predictor(nano_checkpoint, device=request.param, precision='fp32', engine=engine)
        for engine in ('eager', 'graph')
    ]


@pytest.fixture
def recordings(monkeypatch):
    """Weak references to the graphs recorded, in their order."""
    recorded = []

    def record(*args):
        graph = CudaGraph(*args)
        recorded.append(weakref.ref(graph))
        return graph

    monkeypatch.setattr(cuda_graph, 'CudaGraph', record)
    return recorded


def pairs(count=3, height=64, width=96, dtype=np.uint8):
    rng = np.random.default_rng(5)
    top = np.iinfo(dtype).max
    return [
        (
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            rng.integers(0, top, (height // 2, width // 2), dtype=dtype),
        )
        for _ in range(count)
    ]


def check_equal(first, second):
    # On a GPU other algorithms may be chosen: at the edge of two classes float32 decides.
    same = first.labels == second.labels
    assert (~same).mean() < 1e-3
    for name in ('labels', 'confidence', 'overlay'):
        one, other = getattr(first, name), getattr(second, name)
        if one is None:
            assert other is None
            continue
        assert np.abs(one.astype(int) - other)[same].max() <= 1, name
        assert other.flags.c_contiguous


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize(
    'request_', [{}, {'confidence': True}, {'confidence': True, 'overlay': True}]
)
def test_a_replay_gives_what_eager_gives(both, dtype, request_):
    eager, replayed = both
    for images in pairs(dtype=dtype):
        check_equal(eager.predict(*images, **request_), replayed.predict(*images, **request_))


def test_a_bgr_image_seen_as_rgb_gives_what_its_copy_gives(both):
    """It is reversed on the device; an image in the usual order of the same size is not."""
    _, replayed = both
    for rgb, thermal in pairs():
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        check_equal(replayed.predict(rgb, thermal), replayed.predict(bgr[..., ::-1], thermal))


def test_what_changes_from_pair_to_pair_needs_no_new_recording(both, recordings):
    (rgb, thermal), *_ = pairs()
    for low in (0, 60):
        for predictor in both:
            predictor.thermal_settings = ThermalSettings('fixed', low, 200)
            predictor.homography = np.diag([2 + low / 100, 2, 1])
        for opacity in (0.2, 0.9):
            results = [
                predictor.predict(rgb, thermal, overlay=True, overlay_opacity=opacity)
                for predictor in both
            ]
            check_equal(*results)
    assert len(recordings) == 1


def test_a_smoothed_range_goes_on_from_replay_to_replay(both):
    for predictor in both:
        predictor.thermal_settings = ThermalSettings(smoothing_s=0.5)
    eager, replayed = both
    for index, (rgb, thermal) in enumerate(pairs(dtype=np.uint16)):
        time_s = 0.1 * index
        brighter = (thermal // 4 + 8000 * index).astype(np.uint16)
        check_equal(
            eager.predict(rgb, brighter, confidence=True, time_s=time_s),
            replayed.predict(rgb, brighter, confidence=True, time_s=time_s),
        )


def test_a_recording_amid_a_video_leaves_its_range_alone(both, recordings):
    for predictor in both:
        predictor.thermal_settings = ThermalSettings(smoothing_s=0.5)
    eager, replayed = both
    for index, (rgb, thermal) in enumerate(pairs(dtype=np.uint16)):
        request = {'confidence': True, 'overlay': index > 1, 'time_s': 0.1 * index}
        shifted = thermal // 4 + np.uint16(8000 * (index % 2))
        results = [predictor.predict(rgb, shifted, **request) for predictor in both]
        check_equal(*results)
        torch.testing.assert_close(eager.pipeline.running_ranges, replayed.pipeline.running_ranges)
    assert len(recordings) == 2


def test_a_recording_that_fails_leaves_the_range_alone(both):
    """An image whose recording fails, for lack of memory, is not a part of the video."""
    for predictor in both:
        predictor.thermal_settings = ThermalSettings(smoothing_s=0.5)
    eager, replayed = both
    (rgb, thermal), (_, other), _ = pairs(dtype=np.uint16)
    replayed.pipeline.compiled = failing = Mock(side_effect=MemoryError)
    with pytest.raises(MemoryError):
        replayed.predict(rgb, other // 4, time_s=0.0)
    assert failing.called
    replayed.pipeline.compiled = None
    for predictor in both:
        predictor.predict(rgb, thermal, time_s=0.1)
    torch.testing.assert_close(eager.pipeline.running_ranges, replayed.pipeline.running_ranges)


def test_the_number_of_graphs_is_bounded(both, recordings, monkeypatch):
    monkeypatch.setattr(cuda_graph, 'MAX_CACHED_GRAPHS', 4)
    eager, replayed = both
    for width in (32, 64, 96):
        ((rgb, thermal),) = pairs(1, width=width)
        for pair in ((rgb, thermal), (rgb, None), (None, thermal)):
            check_equal(eager.predict(*pair), replayed.predict(*pair))
            assert sum(graph() is not None for graph in recordings) <= 4
    assert len(recordings) == 9


def test_a_result_is_not_overwritten_by_the_next(both):
    _, replayed = both
    first, second, _ = pairs()
    result = replayed.predict(*first, confidence=True)
    kept = result.labels.copy(), result.confidence.copy()
    replayed.predict(*second, confidence=True)
    np.testing.assert_array_equal(result.labels, kept[0])
    np.testing.assert_array_equal(result.confidence, kept[1])


def test_without_a_copy_results_lie_in_the_same_memory(both):
    """They are right until the next call, which is all that the node needs."""
    eager, replayed = both
    results = []
    for images in pairs():
        results.append(replayed.predict(*images, confidence=True, copy=False))
        check_equal(eager.predict(*images, confidence=True), results[-1])
    for name in ('labels', 'confidence'):
        first, *others = (getattr(result, name) for result in results)
        assert all(np.shares_memory(first, other) for other in others)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_the_first_frames_after_warm_up_need_no_recording(both, recordings, dtype):
    """As the node asks for them: labels alone, then without thermal, while its camera stalls."""
    _, replayed = both
    replayed.warm_up(64, 96)
    recordings.clear()
    rgb = np.ones((64, 96, 3), np.uint8)
    for thermal in (np.ones((64, 96), dtype), None):
        replayed.predict(rgb, thermal, time_s=1.0)
    assert recordings == []


def test_all_kinds_of_frames_of_a_node_are_kept(both, recordings):
    """Stalls of either camera and subscribers that come and go: each kind is recorded once."""
    _, replayed = both
    ((rgb, thermal),) = pairs(1, dtype=np.uint16)
    requests = [{'confidence': c, 'overlay': o} for c in (False, True) for o in (False, True)]
    for _ in range(2):
        for images in ((rgb, thermal), (rgb, None), (None, thermal)):
            for request in requests:
                replayed.predict(*images, **request)
    assert len(recordings) == 12


class HostAccess(TorchDispatchMode):
    """Collects the operations that take a tensor of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and value.device.type == 'cpu':
                self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16])
def test_the_preprocessing_brings_nothing_from_the_host_after_the_first_run(dtype):
    """A recording fails otherwise. Tensors on 'meta' have no values that the host could read."""
    meta = torch.device('meta')
    thermal = torch.empty((61, 79), dtype=dtype, device=meta)
    rgb = torch.empty((1, 61, 79, 3), dtype=torch.uint8, device=meta)
    running = torch.empty(2, device=meta), torch.empty((), device=meta)
    found = []
    for _ in range(2):
        with HostAccess() as access, torch.inference_mode():
            scaled = scale_thermal(thermal, running=running, invalid_values=(5,))
            to_input('thermal', scaled[None], (61, 79))
            to_input('rgb', rgb, (61, 79))
        found.append(access.found)
    assert found[0]  # tables of this size
    assert found[1] == []
