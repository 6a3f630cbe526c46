"""The contents of the GPU's report, made on a CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu_report
from benchmarks.start_time import start_s
from sartm_model.errors import SartmError
from sartm_model.inference import variants


def test_the_report_of_a_gpu_on_a_cpu(tmp_path, monkeypatch):
    """The same steps; the second variant is compared with the first."""
    monkeypatch.setattr(gpu_report, 'agreement', lambda device: 1.0)
    runs = [('nano', 64, 64), ('demo', 64, 96)]
    names = ('fp32 plain', 'fp32')
    monkeypatch.setattr(gpu_report, 'start_s', lambda *arguments: float(len(arguments[1])))
    starts = {runs[0]: ('auto', 'compile', 'compile')}
    result = gpu_report.report(tmp_path, 'cpu', runs, {runs[1]: names}, starts, 1)
    assert result['failed'] == []
    text = (tmp_path / 'table.md').read_text()
    assert [run['checkpoint'] for run in result['runs']] == ['nano', 'demo']
    assert text.count('| fp32 |') == 2 + 1
    before, after = (result['compared'][0]['variants'][name] for name in names)
    assert before['ratio'] == 1
    assert after['agreement'] > 0.999
    assert 'nano at 64x64, starts in turn: auto 4.0 s, compile 7.0 s, compile 7.0 s.' in text
    assert json.loads((tmp_path / 'results.json').read_text()) == result
    profile = (tmp_path / 'profile.txt').read_text()
    counts = []
    for name in names:
        rows = profile.partition(f'demo at 64x96, {name}\n')[2].splitlines()
        total_ms, _, count, _ = rows[0].split()
        times_ms = [float(row.split()[0]) for row in rows[1 : 1 + gpu_report.TOP_KERNELS]]
        assert times_ms == sorted(times_ms, reverse=True)
        assert 0 < sum(times_ms) <= float(total_ms)
        counts.append(int(count))
    assert counts[1] < counts[0]


def test_what_fails_on_a_gpu_does_not_end_the_report(tmp_path, monkeypatch):
    """Each part still has its row."""

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
    monkeypatch.setattr(gpu_report, 'start_s', measured)
    once = {runs[1]: ('auto',)}
    result = gpu_report.report(tmp_path, 'cpu', runs, once, once, 1)
    assert result['failed'] == [
        'agreement: RuntimeError: operation not permitted',
        'nano at 64x64: ValueError: a fault',
        'nano compared: ValueError: a fault',
        'nano started: ValueError: a fault',
    ]
    text = (tmp_path / 'table.md').read_text()
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert len({line.count('|') for line in rows}) == 1
    assert 'OutOfMemoryError: too much' in text
    assert 'an unknown share of the pixels' in text
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(gpu_report, 'report', lambda *_: result)
    assert gpu_report.main(['--out', str(tmp_path)]) == 1


def test_variants_that_fail_on_a_gpu_are_failures_unless_memory_runs_out(tmp_path, monkeypatch):
    found = {'image': [64, 64], 'device': 'a GPU'}
    errors = ('RuntimeError: a fault', 'OutOfMemoryError: too much')
    names = ('first', 'second', 'third')
    of_names = dict(zip(names, [{'median_ms': 1.0}, *({'error': e} for e in errors)], strict=True))
    monkeypatch.setattr(gpu_report, 'agreement', lambda device: 1.0)
    monkeypatch.setattr(gpu_report, 'compare', lambda *_, **__: {**found, 'variants': of_names})
    monkeypatch.setattr(gpu_report, 'profile', lambda checkpoint, name, *_: f'kernels of {name}')
    result = gpu_report.report(tmp_path, 'cpu', [], {('nano', 64, 64): names}, {}, 1)
    assert result['failed'] == ['nano compared, second: RuntimeError: a fault']
    assert 'OutOfMemoryError: too much' in (tmp_path / 'table.md').read_text()
    assert (tmp_path / 'profile.txt').read_text() == 'nano at 64x64, first\nkernels of first'


def test_a_reference_that_lacks_memory_is_no_failure(tmp_path, monkeypatch):
    def too_much(*_, **__):
        raise torch.OutOfMemoryError('too much')

    monkeypatch.setattr(gpu_report, 'agreement', lambda device: 1.0)
    monkeypatch.setattr(variants, 'build_variants', lambda *_: {'fp32 plain': too_much})
    compared = {('nano', 64, 64): ('fp32 plain', 'fp32')}
    result = gpu_report.report(tmp_path, 'cpu', [], compared, {}, 1)
    assert result['failed'] == []
    text = (tmp_path / 'table.md').read_text()
    assert 'nano at 64x64 on cpu:' in text
    assert '| fp32 plain | SartmError: ' in text
    assert 'OutOfMemoryError: too much' in text


@pytest.mark.slow
def test_a_start_is_timed_in_a_process_of_its_own(tmp_path):
    assert start_s('demo', 'auto', 64, 96, 'cpu', tmp_path) > 0
    with pytest.raises(SartmError, match=r'exit status 2: .*no-such\.safetensors'):
        start_s('no-such.safetensors', 'auto', 64, 96, 'cpu', tmp_path)


def test_the_report_of_a_gpu_says_where_there_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert gpu_report.main(['--out', str(tmp_path)]) == 2
    assert 'no CUDA device' in capsys.readouterr().err
