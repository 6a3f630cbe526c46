"""The contents of `sartm benchmark`, not how long anything takes."""

from __future__ import annotations

import json

import pytest
import torch

from sartm_model.cli.main import main
from sartm_model.errors import SartmError
from sartm_model.inference.benchmark import benchmark, matrix_tflops
from sartm_model.inference.variants import compare

STAGES = ['upload', 'preprocess', 'encoder', 'fusion', 'heads', 'postprocess', 'download']


@pytest.mark.usefixtures('two_threads')
def test_the_stages_make_up_a_pair(nano_checkpoint):
    result = benchmark(nano_checkpoint, 64, 96, device='cpu', iterations=3)
    assert list(result['stages_ms']) == STAGES
    for spread in (*result['stages_ms'].values(), result['total_ms']):
        assert 0 <= spread['median'] <= spread['p99']
    assert result['engine'] == 'parallel'
    assert (result['precision'], result['image']) == ('fp32', [64, 96])
    assert result['gflop'] > 0
    rate = result['gflop'] / result['total_ms']['median'] / result['matrix_tflops']
    assert result['of_matrix_rate'] == pytest.approx(rate, rel=0.1)  # all are rounded
    assert result['peak_memory_mib'] > 50


def test_every_variant_is_compared_with_fp32(nano_checkpoint, monkeypatch):
    def no_compiler(*_, **__):  # one that is there takes minutes
        raise RuntimeError('no compiler here')

    monkeypatch.setattr(torch, 'compile', no_compiler)
    variants = compare(nano_checkpoint, 64, 96, device='cpu', iterations=2)['variants']
    names = {'fp32', 'fp32 unmerged', 'fp32 plain', 'fp32 channels last', 'fp32 compile'}
    assert set(variants) == names | {'fp32 parallel', 'bf16'}
    assert variants['fp32']['ratio'] == variants['fp32']['agreement'] == 1
    for name in ('fp32 unmerged', 'fp32 plain', 'fp32 parallel'):
        assert variants[name]['agreement'] > 0.999  # rounding alone may decide a pixel
    assert 0.5 < variants['bf16']['agreement'] < 1  # untrained: many classes are nearly equal
    assert variants['fp32 compile'] == {'error': 'RuntimeError: no compiler here'}


def test_a_reference_that_does_not_run_is_named(nano_checkpoint, monkeypatch):
    def too_much(*_, **__):
        raise torch.OutOfMemoryError('too much')

    monkeypatch.setattr(
        'sartm_model.inference.variants.build_variants', lambda *_: {'fp32': too_much}
    )
    with pytest.raises(SartmError, match=r"'fp32', with which .*: OutOfMemoryError: too much"):
        compare(nano_checkpoint, 64, 96, device='cpu', iterations=1)


def test_the_command_writes_json(tmp_path, capsys):
    file = tmp_path / 'speed.json'
    arguments = ['benchmark', '--size', 'nano', '--height', '64', '--width', '64']
    arguments += ['--device', 'cpu', '--iterations', '1', '--json', str(file)]
    assert main(arguments) == 0
    assert json.loads(file.read_text())['checkpoint'] == 'nano'
    assert main([*arguments, '--compare', '--precision', 'bf16']) == 2
    assert 'leave --precision and --engine out' in capsys.readouterr().err


def test_a_size_that_is_too_small_is_refused(nano_checkpoint):
    with pytest.raises(SartmError, match='31x64 pixels; expected 32 or more'):
        benchmark(nano_checkpoint, 64, 31, device='cpu')


def test_the_matrix_rate_is_positive():
    assert matrix_tflops(torch.device('cpu'), torch.float32) > 0
