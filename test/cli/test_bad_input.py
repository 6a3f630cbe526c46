"""Bad input of each verb: one line that names it, status 2, and nothing written."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch
from command_line import expect_error, run
from untrained_checkpoint import save_untrained

from sartm_model.labels import PST900

pytestmark = pytest.mark.usefixtures('bag_verbs')


def damaged_checkpoint(kind: str, good: Path, folder: Path) -> Path:
    path = folder / f'{kind}.safetensors'
    if kind == 'truncated':
        path.write_bytes(good.read_bytes()[:5000])
    elif kind == 'foreign':
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(100))
    elif kind == 'pickled':
        torch.save({'model': torch.zeros(3)}, path)
    elif kind == 'empty':
        path.touch()
    return path  # 'missing': not made


@pytest.mark.parametrize('kind', ['missing', 'truncated', 'foreign', 'pickled', 'empty'])
@pytest.mark.parametrize('verb', ['predict', 'evaluate', 'info', 'replay'])
def test_bad_checkpoints(capsys, tmp_path, folders, nano_checkpoint, verb, kind):
    bad = damaged_checkpoint(kind, nano_checkpoint, tmp_path)
    out = tmp_path / 'out'
    model = ['--checkpoint', bad]
    mfnet = ['--dataset', 'mfnet', '--root', folders, '--split', 'val']
    arguments: dict[str, list] = {
        'predict': ['--rgb', folders / 'rgb', *model, '--out', out],
        'evaluate': [*mfnet, *model, '--json', out],
        'info': [bad],
        'replay': [tmp_path / 'bag', *model, '--json', out, '--report', out],
    }
    assert str(bad) in expect_error(capsys, out, verb, *arguments[verb])


def test_bad_images(capsys, folders, nano_checkpoint):
    out = folders / 'out'
    model = ['--checkpoint', nano_checkpoint, '--out', out]
    rgb, thermal = folders / 'rgb', folders / 'thermal'

    line = expect_error(capsys, out, 'predict', '--rgb', folders / 'no', *model)
    assert 'no does not exist' in line
    (thermal / '00003N.png').unlink()
    assert '00003N' in expect_error(
        capsys, out, 'predict', '--rgb', rgb, '--thermal', thermal, *model
    )
    broken = rgb / '00001D.png'
    broken.write_bytes(broken.read_bytes()[:200])
    assert str(broken) in expect_error(capsys, out, 'predict', '--rgb', rgb, *model)
    (folders / 'empty').mkdir()
    assert 'empty' in expect_error(capsys, out, 'predict', '--rgb', folders / 'empty', *model)


def test_an_output_that_cannot_be_made(capsys, folders, nano_checkpoint):
    file = folders / 'val.txt'
    model = ['--checkpoint', nano_checkpoint, '--out', file]
    assert str(file) in expect_error(capsys, None, 'predict', '--rgb', folders / 'rgb', *model)
    assert file.read_text().startswith('00001D')


def test_a_full_disk_is_one_line_that_names_the_file(capsys, folders, nano_checkpoint):
    out = folders / 'out'
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # bytes; stands in for it
        line = expect_error(
            *(capsys, None, 'predict', '--rgb', folders / 'rgb', '--out', out),
            *('--checkpoint', nano_checkpoint),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f'{out / "00001D_labels.png"}: File too large' in line
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    'arguments',
    [
        'benchmark --iterations 0',
        'benchmark --compare --iterations -3',
        'info demo --height -1',
        'info demo --width 1.5',
        'export --out OUT --width 0',
        'export --out OUT --thermal-size 0 640',
        'data init OUT --seed -1',
        'pseudo-label --source graph --images OUT --out OUT --count 0',
        'pseudo-label --source graph --images OUT --out OUT --min-area -1',
    ],
)
def test_numbers_that_cannot_be(capsys, tmp_path, arguments):
    out = tmp_path / 'out'
    line = expect_error(capsys, out, *arguments.replace('OUT', str(out)).split())
    assert 'expected a whole number of ' in line


def test_options_of_an_export_that_would_have_no_effect(capsys, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript')
    out = tmp_path / 'out.onnx'
    alone = ['--modality', 'thermal', '--thermal-size', 512, 640]
    line = expect_error(capsys, out, 'export', '--out', out, *alone)
    assert 'give its size as --height and --width' in line
    rgb = ['--modality', 'rgb', '--thermal-range', 0, 9]
    assert 'takes rgb; leave' in expect_error(capsys, out, 'export', '--out', out, *rgb)
    depth = ['--checkpoint', 'demo_depth', '--thermal-polarity', 'black_hot']
    line = expect_error(capsys, out, 'export', '--out', out, *depth)
    assert 'takes rgb and depth; leave' in line
    rgb = ['--modality', 'rgb', '--thermal-type', 'uint16']
    line = expect_error(capsys, out, 'export', '--out', out, *rgb)
    assert '--thermal-type uint16 is of thermal or depth, but the file takes rgb; leave' in line


def test_data_sets_that_do_not_fit(capsys, tmp_path, folders, nano_checkpoint):
    base = ['evaluate', '--checkpoint', nano_checkpoint]
    mfnet = ['--dataset', 'mfnet', '--split']
    assert 'root' in expect_error(capsys, None, *base, *mfnet, 'val')
    assert 'holdout' in expect_error(capsys, None, *base, *mfnet, 'holdout', '--root', folders)
    synthetic = ['--dataset', 'synthetic', '--split', 'holdout']
    assert 'holdout' in expect_error(capsys, None, *base, *synthetic)

    other = save_untrained(tmp_path / 'pst900.safetensors', PST900)
    line = expect_error(
        capsys, None, 'evaluate', '--checkpoint', other, *mfnet, 'val', '--root', folders
    )
    assert 'pst900' in line
    assert 'mfnet' in line


def test_settings_of_an_evaluation_that_do_not_fit(capsys, tmp_path, folders, nano_checkpoint):
    out = tmp_path / 'report'
    base = ['evaluate', '--dataset', 'mfnet', '--root', folders, '--split', 'val']
    base += ['--checkpoint', nano_checkpoint, '--report', out]
    assert 'without a corruption' in expect_error(capsys, out, *base, '--severity', 2)
    assert 'expected 1 to 5' in expect_error(capsys, out, *base, '--corruption', 'rgb_dark')
    dark = ['--corruption', 'rgb_dark', '--severity', 2, '--modality', 'thermal']
    assert 'leaves out' in expect_error(capsys, out, *base, *dark)
    assert 'scale -1' in expect_error(capsys, out, *base, '--scales', 1, -1)
    out.touch()
    assert 'takes a folder' in expect_error(capsys, None, *base)


def test_a_report_without_matplotlib_is_refused_before_anything_is_measured(
    capsys, monkeypatch, folders, nano_checkpoint
):
    for module in ('report', 'curves'):
        name = f'sartm_model.evaluation.report.{module}'
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    out = folders / 'report'
    base = ['evaluate', '--dataset', 'mfnet', '--root', folders, '--split', 'val']
    line = expect_error(capsys, out, *base, '--checkpoint', nano_checkpoint, '--report', out)
    assert 'needs matplotlib' in line


def test_bags_that_cannot_be_made_or_replayed(capsys, folders, nano_checkpoint):
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    expect_error(capsys, folders / 'b', 'make-bag', *images, '--out', folders / 'b', '--rate', 0)
    for fault, value in (('freeze', '2'), ('freeze', '1:0'), ('drop', 1), ('jitter', -1)):
        line = expect_error(
            capsys, folders / 'b', 'make-bag', *images, '--out', folders / 'b', f'--{fault}', value
        )
        assert fault in line
    late = ['--rate', 2, '--freeze', '0.5:1', '--freeze', '2:1']  # the last is at 1 s
    line = expect_error(capsys, folders / 'b', 'make-bag', *images, '--out', folders / 'b', *late)
    assert 'the freeze 2:1 s repeats no image; the last image of thermal is at 1 s' in line
    twice = ['--rgb', folders / 'rgb', '--thermal', folders / 'rgb', '--out', folders / 'b']
    line = expect_error(capsys, folders / 'b', 'make-bag', *twice)
    assert 'with thermal in alpha, because it is given for both rgb and thermal' in line
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    before = sorted((folders / 'bag').iterdir())
    assert 'exists' in expect_error(capsys, None, 'make-bag', *images, '--out', folders / 'bag')
    assert sorted((folders / 'bag').iterdir()) == before

    out = folders / 'report'
    replay = ['replay', '--checkpoint', nano_checkpoint, '--report', out]
    assert 'metadata.yaml' in expect_error(capsys, out, *replay, folders / 'rgb')
    line = expect_error(capsys, out, *replay, folders / 'bag', '--rgb-topic', '/left')
    assert '/left' in line
    assert '/camera/color/image_raw' in line
    (folders / 'labels' / '00003N.png').unlink()
    line = expect_error(capsys, out, *replay, folders / 'bag', '--labels', folders / 'labels')
    assert '2 label images' in line
    assert 'has 3 images' in line


def test_train_names_an_unknown_key(capsys, tmp_path):
    config = tmp_path / 'config.yaml'
    config.write_text('{}\n')
    out = tmp_path / 'run'
    line = expect_error(capsys, out, 'train', '--config', config, '--out', out, 'no.such=1')
    assert 'no' in line
    assert str(tmp_path / 'none.yaml') in expect_error(
        capsys, out, 'train', '--config', tmp_path / 'none.yaml', '--out', out
    )
