"""What `sartm benchmark` and the GPU's report say, not how long anything takes."""

from __future__ import annotations

import json

import pytest
import torch
from untrained_checkpoint import save_untrained

from benchmarks import gpu_report
from sartm_model.cli.main import main
from sartm_model.errors import SartmError
from sartm_model.inference import benchmark as benchmarks
from sartm_model.inference.benchmark import benchmark, compare, matrix_tflops

STAGES = ['upload', 'preprocess', 'encoder', 'fusion', 'heads', 'postprocess', 'download']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('benchmark') / 'untrained.safetensors')


def test_the_stages_make_up_a_pair(checkpoint):
    result = benchmark(checkpoint, 64, 96, device='cpu', iterations=3)
    assert list(result['stages_ms']) == STAGES
    for spread in (*result['stages_ms'].values(), result['total_ms']):
        assert 0 <= spread['median'] <= spread['p99']
    engine = 'parallel' if torch.get_num_threads() > 1 else 'eager'
    assert (result['engine'], result['precision'], result['image']) == (engine, 'fp32', [64, 96])
    assert result['gflop'] > 0
    rate = result['gflop'] / result['total_ms']['median'] / result['matrix_tflops']
    assert result['of_matrix_rate'] == pytest.approx(rate, rel=0.1)  # all are rounded
    assert result['peak_memory_mib'] > 50


def test_every_way_is_run_and_held_against_fp32(checkpoint, monkeypatch):
    def no_compiler(*_, **__):  # one that is there takes minutes
        raise RuntimeError('no compiler here')

    monkeypatch.setattr(torch, 'compile', no_compiler)
    ways = compare(checkpoint, 64, 96, device='cpu', iterations=2)['variants']
    plain = {'fp32', 'fp32 unmerged', 'fp32 channels last', 'fp32 compiled'}
    assert set(ways) == plain | {'fp32 parallel', 'bf16'}
    assert ways['fp32']['ratio'] == ways['fp32']['agreement'] == 1
    for name in ('fp32 unmerged', 'fp32 parallel'):
        assert ways[name]['agreement'] > 0.999  # rounding alone may decide a pixel
    assert 0.5 < ways['bf16']['agreement'] < 1  # untrained: many classes are nearly equal
    assert ways['fp32 compiled'] == {'error': 'RuntimeError: no compiler here'}


def test_the_ways_on_a_gpu_are_named(checkpoint):
    names = list(benchmarks._variants(checkpoint, torch.device('cuda')))
    assert {benchmarks.GRAPH, benchmarks.TWO_STREAMS} <= set(names)
    assert sum('compiled' in name for name in names) == 2  # each takes a minute


def test_the_command_writes_json(tmp_path, capsys):
    file = tmp_path / 'speed.json'
    arguments = ['benchmark', '--size', 'nano', '--height', '64', '--width', '64']
    arguments += ['--device', 'cpu', '--iterations', '1', '--json', str(file)]
    assert main(arguments) == 0
    assert json.loads(file.read_text())['checkpoint'] == 'nano'
    assert main([*arguments, '--compare', '--precision', 'bf16']) == 2
    assert 'leave --precision out' in capsys.readouterr().err


def test_a_size_that_is_too_small_is_refused(checkpoint):
    with pytest.raises(SartmError, match='31x64 pixels; expected 32 or more'):
        benchmark(checkpoint, 64, 31, device='cpu')


def test_the_matrix_rate_is_positive():
    assert matrix_tflops(torch.device('cpu'), torch.float32) > 0


def test_the_report_of_a_gpu_on_a_cpu(tmp_path, monkeypatch):
    """The same steps; a way that cannot run is a row of the table."""
    monkeypatch.setattr(gpu_report, 'agreement', lambda device: 1.0)
    result = gpu_report.report(tmp_path, 'cpu', [('nano', 64, 64), ('demo', 64, 96)], [], 1)
    text = (tmp_path / 'table.md').read_text()
    assert [run['checkpoint'] for run in result['runs']] == ['nano', 'demo']
    assert text.count('| fp32 |') == 2
    assert json.loads((tmp_path / 'results.json').read_text()) == result


def test_what_fails_on_a_gpu_does_not_end_the_report(tmp_path, monkeypatch):
    """None of it ever ran on one: each part must come to its row."""

    def fails(device):
        raise RuntimeError('operation not permitted\nwhen stream is capturing')

    def measured(checkpoint, *_, **__):
        if checkpoint == 'demo':
            raise torch.OutOfMemoryError('too much')
        raise ValueError('a fault')

    monkeypatch.setattr(gpu_report, 'agreement', fails)
    monkeypatch.setattr(gpu_report, 'benchmark', measured)
    monkeypatch.setattr(gpu_report, 'compare', measured)
    runs = [('demo', 64, 96), ('nano', 64, 64)]
    result = gpu_report.report(tmp_path, 'cpu', runs, runs[1:], 1)
    assert result['failed'] == [
        'agreement: RuntimeError: operation not permitted',
        'nano at 64x64: ValueError: a fault',
        'nano compared: ValueError: a fault',
    ]
    text = (tmp_path / 'table.md').read_text()
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert len({line.count('|') for line in rows}) == 1
    assert 'OutOfMemoryError: too much' in text
    assert 'an unknown share of the pixels' in text
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(gpu_report, 'report', lambda *_: result)
    assert gpu_report.main(['--out', str(tmp_path)]) == 1


def test_the_report_says_which_way_was_faster():
    variants = {benchmarks.GRAPH: {'median_ms': 2.0}, benchmarks.TWO_STREAMS: {'median_ms': 1.5}}
    assert gpu_report.answers(variants) == [
        'Faster: a stream for each, 1.5 ms; one batch of both modalities, 2.0 ms.'
    ]
    variants[benchmarks.TWO_STREAMS] = {'error': 'failed'}
    assert gpu_report.answers(variants) == []


def test_the_report_of_a_gpu_says_where_there_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert gpu_report.main(['--out', str(tmp_path)]) == 2
    assert 'no CUDA device' in capsys.readouterr().err
