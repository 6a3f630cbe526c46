"""Counting what a pair starts on a GPU, and that a CUDA graph could record it, without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import gpu_operations
from benchmarks.gpu_operations import count_operations
from sartm_model.errors import SartmError
from sartm_model.inference import pipeline
from sartm_model.inference.benchmark import untrained
from sartm_model.inference.pipeline import OutputRequest
from sartm_model.modalities import MODALITIES

EVERYTHING = OutputRequest(
    confidence=True, overlay=True, fixed_range=True, warp=True, invalid_values=(0,), black_hot=True
)


HOST_INDEX = torch.tensor([0, 1])


@pytest.fixture(scope='module', params=['nano', 'lite', 'tiny'])
def checkpoint(request):
    with untrained(request.param) as path:
        yield path


def blank_images(*names, dtype=np.uint8, size=(96, 160)):
    return {
        name: MODALITIES[name].blank(*size, np.uint8 if name == 'rgb' else dtype) for name in names
    }


@pytest.mark.parametrize('names', [('rgb', 'thermal'), ('rgb',), ('thermal',)])
@pytest.mark.parametrize('request_', [OutputRequest(), OutputRequest(smoothed=True), EVERYTHING])
def test_nothing_that_a_graph_records_needs_the_host(checkpoint, names, request_):
    for dtype, size in ((np.uint8, (75, 101)), (np.uint16, (96, 160))):
        images = blank_images(*names, dtype=dtype, size=size)
        assert count_operations(checkpoint, images, request_).in_row > 100


@pytest.mark.parametrize('name', ['demo', 'demo_depth'])
def test_parallel_functions_count_in_a_row_by_the_longest(name):
    images = blank_images('rgb', 'thermal' if name == 'demo' else 'depth', dtype=np.uint16)
    counts = count_operations(name, images)
    one, other = (count_operations(name, {key: image}) for key, image in images.items())
    parts = counts.parts
    assert parts['encoder'] == one.parts['encoder'] + other.parts['encoder']
    # Beside something as long or longer run one image, two levels of the fusion and head 2.
    beside = parts['encoder'] // 2 + parts['fusions'] // 3 * 2 + parts['auxiliary_head']
    assert counts.in_row == pytest.approx(parts.total() - beside, abs=5)
    assert counts.names.total() == parts.total()


@pytest.mark.parametrize(
    'work',
    [
        lambda logits: logits.max().item(),
        lambda logits: logits[logits > 0],
        lambda logits: logits * torch.ones(1, 1, 1),
        lambda logits: torch.from_numpy(np.ones(3)).to(logits.device),
        lambda logits: logits.sum().cpu(),
        lambda logits: logits[:, HOST_INDEX],
    ],
    ids=['number', 'mask', 'host tensor', 'from numpy', 'to the host', 'index'],
)
def test_what_needs_the_host_is_an_error(work, monkeypatch):
    labels_from_logits = pipeline.labels_from_logits

    def with_fault(heads, *args):
        work(heads[0])
        return labels_from_logits(heads, *args)

    monkeypatch.setattr(pipeline, 'labels_from_logits', with_fault)
    # torch raises what it likes where a tensor without memory has no numbers.
    with pytest.raises((SartmError, RuntimeError), match=r'host|meta'):
        count_operations('demo', blank_images('rgb', 'thermal'))


def test_the_command_prints_a_line_for_each_size(capsys):
    gpu_operations.main(['nano', 'lite', '--height', '96', '--width', '128', '--uint16'])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(':')[0] for line in lines] == ['nano', 'lite']
    assert all(' in a row; preprocess ' in line for line in lines)
