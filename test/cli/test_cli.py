"""The `sartm` command: its help, what each verb does, and one line for each bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.cli.main import main
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET, PST900
from sartm_model.registration.homography import write_homography

VERBS = (
    'predict',
    'evaluate',
    'align',
    'train',
    'data',
    'download',
    'info',
    'benchmark',
    'adapters',
    'export',
    'make-bag',
    'replay',
)
HEIGHT, WIDTH = 72, 100  # neither is divisible by 32


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    return save_untrained(tmp_path_factory.mktemp('model') / 'nano.safetensors')


@pytest.fixture
def folders(tmp_path) -> Path:
    """rgb/, thermal/ and labels/ of three frames, and an MFNet split of them."""
    rng = np.random.default_rng(3)
    for part in ('rgb', 'thermal', 'labels'):
        (tmp_path / part).mkdir()
    names = ['00001D', '00002N', '00003N']
    for name in names:
        images = {
            'rgb': rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
            'thermal': rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8),
            'labels': rng.integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8),
        }
        for part, image in images.items():
            assert cv2.imwrite(str(tmp_path / part / f'{name}.png'), image)
    (tmp_path / 'val.txt').write_text('\n'.join(names) + '\n')
    return tmp_path


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'sartm_model.cli', *arguments],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


# Help and usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_help_with_examples(verb):
    result = command(verb, '--help')
    assert result.returncode == 0
    assert not result.stderr
    assert f'usage: sartm {verb}' in result.stdout
    assert f'\nexamples:\n  sartm {verb}' in result.stdout


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    listed = command('--help').stdout
    assert all(re.search(rf'\n    {verb}\s', listed) for verb in VERBS)
    code = (
        'import sys, sartm_model.cli.main as cli\n'
        'try: cli.main(["predict", "--help"])\n'
        'except SystemExit: pass\n'
        'print(sorted({"torch", "numpy", "cv2", "rosbags", "rclpy"} & sys.modules.keys()))'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == '[]', result.stderr


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], 'VERB'),
        (['paint'], 'paint'),
        (['predict', '--rgb', 'a.png'], '--out'),
        (['predict', '--out', 'x'], 'neither --rgb nor --thermal'),
        (['predict', '--rgb', 'a.png', '--out', 'x', '--precision', 'fp8'], 'fp8'),
        (['evaluate', '--dataset', 'coco', '--split', 'val'], 'coco'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--corruption', 'fog'], 'fog'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--severity', '6'], '6'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--head', 'best'], 'best'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--scales', 'big'], 'big'),
        (['make-bag', '--rgb', 'a', '--thermal', 'b', '--out', 'c', '--rate', 'fast'], 'fast'),
        (['replay', '/nowhere/bag', '--checkpoint', '/nowhere/f.safetensors'], '/nowhere/'),
        (['info', '/nowhere/f.safetensors'], '/nowhere/f.safetensors'),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, expected):
    result = command(*arguments)
    assert result.returncode == 2
    assert not result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert 'error: ' in result.stderr
    assert expected in result.stderr


def test_ctrl_c(monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr('sartm_model.cli.info.run', interrupted)
    assert run('info', 'demo') == 130


# Bad input: run in this process, where torch is loaded already ------------------------------------


def expect_error(capsys, out: Path | None, *arguments: object) -> str:
    """Run, demand status 2 and one line, and that `out` was not made. Returns the line."""
    capsys.readouterr()
    assert run(*arguments) == 2
    printed, line = capsys.readouterr()
    assert not printed
    assert len(line.splitlines()) == 1, line
    assert line.startswith(f'sartm {arguments[0]}: error: ')
    assert out is None or not out.exists()
    return line


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
def test_bad_checkpoints(capsys, tmp_path, folders, checkpoint, verb, kind):
    bad = damaged_checkpoint(kind, checkpoint, tmp_path)
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


def test_bad_images(capsys, folders, checkpoint):
    out = folders / 'out'
    model = ['--checkpoint', checkpoint, '--out', out]
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


def test_an_output_that_cannot_be_made(capsys, folders, checkpoint):
    file = folders / 'val.txt'
    model = ['--checkpoint', checkpoint, '--out', file]
    assert str(file) in expect_error(capsys, None, 'predict', '--rgb', folders / 'rgb', *model)
    assert file.read_text().startswith('00001D')


def test_data_sets_that_do_not_fit(capsys, tmp_path, folders, checkpoint):
    base = ['evaluate', '--checkpoint', checkpoint]
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


def test_settings_of_an_evaluation_that_do_not_fit(capsys, tmp_path, folders, checkpoint):
    out = tmp_path / 'report'
    base = ['evaluate', '--dataset', 'mfnet', '--root', folders, '--split', 'val']
    base += ['--checkpoint', checkpoint, '--report', out]
    assert 'without a corruption' in expect_error(capsys, out, *base, '--severity', 2)
    assert 'expected 1 to 5' in expect_error(capsys, out, *base, '--corruption', 'rgb_dark')
    dark = ['--corruption', 'rgb_dark', '--severity', 2, '--modality', 'thermal']
    assert 'leaves out' in expect_error(capsys, out, *base, *dark)
    assert 'scale -1' in expect_error(capsys, out, *base, '--scales', 1, -1)
    out.touch()
    assert 'takes a folder' in expect_error(capsys, None, *base)


def test_a_report_without_matplotlib_is_refused_before_anything_is_measured(
    capsys, monkeypatch, folders, checkpoint
):
    for module in ('report', 'curves'):
        name = f'sartm_model.evaluation.report.{module}'
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    out = folders / 'report'
    base = ['evaluate', '--dataset', 'mfnet', '--root', folders, '--split', 'val']
    line = expect_error(capsys, out, *base, '--checkpoint', checkpoint, '--report', out)
    assert 'needs matplotlib' in line


def test_bags_that_cannot_be_made_or_replayed(capsys, folders, checkpoint):
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    expect_error(capsys, folders / 'b', 'make-bag', *images, '--out', folders / 'b', '--rate', 0)
    for fault, value in (('freeze', '2'), ('freeze', '1:0'), ('drop', 1), ('jitter', -1)):
        line = expect_error(
            capsys, folders / 'b', 'make-bag', *images, '--out', folders / 'b', f'--{fault}', value
        )
        assert fault in line
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    before = sorted((folders / 'bag').iterdir())
    assert 'exists' in expect_error(capsys, None, 'make-bag', *images, '--out', folders / 'bag')
    assert sorted((folders / 'bag').iterdir()) == before

    out = folders / 'report'
    replay = ['replay', '--checkpoint', checkpoint, '--report', out]
    assert 'metadata.yaml' in expect_error(capsys, out, *replay, folders / 'rgb')
    line = expect_error(capsys, out, *replay, folders / 'bag', '--rgb-topic', '/left')
    assert '/left' in line
    assert '/camera/color/image_raw' in line
    (folders / 'labels' / '00003N.png').unlink()
    line = expect_error(capsys, out, *replay, folders / 'bag', '--labels', folders / 'labels')
    assert '2 label images' in line
    assert '3 RGB' in line


def test_train_names_an_unknown_key(capsys, tmp_path):
    config = tmp_path / 'config.yaml'
    config.write_text('{}\n')
    out = tmp_path / 'run'
    line = expect_error(capsys, out, 'train', '--config', config, '--out', out, 'no.such=1')
    assert 'no' in line
    assert str(tmp_path / 'none.yaml') in expect_error(
        capsys, out, 'train', '--config', tmp_path / 'none.yaml', '--out', out
    )


# What the verbs do --------------------------------------------------------------------------------


def test_predict_folders(folders, checkpoint):
    # Thermal at half the size and 16 bit: outputs have the size of RGB all the same.
    for path in (folders / 'thermal').iterdir():
        half = cv2.resize(read(path), (WIDTH // 2, HEIGHT // 2)).astype(np.uint16) * 50
        assert cv2.imwrite(str(path), half)
    arguments = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    assert run('predict', *arguments, '--checkpoint', checkpoint, '--out', folders / 'out') == 0
    stems = ('00001D', '00002N', '00003N')
    assert {p.name for p in (folders / 'out').iterdir()} == {
        f'{stem}_{kind}.png' for stem in stems for kind in ('labels', 'overlay')
    }
    predictor = Predictor(checkpoint)
    for stem in stems:
        rgb = read(folders / 'rgb' / f'{stem}.png')[..., ::-1]
        expected = predictor.predict(rgb, read(folders / 'thermal' / f'{stem}.png'), overlay=True)
        labels = read(folders / 'out' / f'{stem}_labels.png')
        assert labels.dtype == np.uint8
        assert labels.shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(labels, expected.labels)
        overlay = read(folders / 'out' / f'{stem}_overlay.png')[..., ::-1]
        np.testing.assert_array_equal(overlay, expected.overlay)


@pytest.mark.parametrize('modality', ['rgb', 'thermal'])
def test_predict_one_modality_of_one_file(folders, checkpoint, modality):
    image = folders / modality / '00002N.png'
    out = folders / 'out'
    assert run('predict', f'--{modality}', image, '--checkpoint', checkpoint, '--out', out) == 0
    given = read(image)
    rgb, thermal = (given[..., ::-1], None) if modality == 'rgb' else (None, given)
    expected = Predictor(checkpoint).predict(rgb, thermal).labels
    np.testing.assert_array_equal(read(out / '00002N_labels.png'), expected)
    assert read(out / '00002N_overlay.png').shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('modality', ['both', 'rgb', 'thermal'])
def test_evaluate(folders, checkpoint, modality):
    out = folders / 'figures.json'
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val', '--json', out]
    assert run('evaluate', '--checkpoint', checkpoint, *arguments, '--modality', modality) == 0
    figures = json.loads(out.read_text())

    predictor = Predictor(checkpoint)
    confusion = np.zeros((9, 9), int)
    for name in ('00001D', '00002N', '00003N'):
        rgb = read(folders / 'rgb' / f'{name}.png')[..., ::-1]
        thermal = read(folders / 'thermal' / f'{name}.png')
        labels = predictor.predict(
            None if modality == 'thermal' else rgb, None if modality == 'rgb' else thermal
        ).labels
        truth = read(folders / 'labels' / f'{name}.png')
        for t in range(9):
            for p in range(9):
                confusion[t, p] += ((truth == t) & (labels == p)).sum()
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    assert figures['frames'] == 3
    assert figures['day']['frames'] == 1
    assert figures['night']['frames'] == 2
    assert figures['miou'] == pytest.approx(100 * (hit / union).mean())
    assert figures['pixel_accuracy'] == pytest.approx(100 * hit.sum() / confusion.sum())
    assert list(figures['per_class_iou']) == list(MFNET.classes)
    assert figures['settings'] == {
        'checkpoint': str(checkpoint),
        'dataset': 'mfnet',
        'split': 'val',
        'modality': modality,
        'corruption': None,
        'severity': None,
        'head': 'mean',
        'flip': False,
        'scales': [1.0],
        'device': str(predictor.device),
        'precision': predictor.precision,
    }


@pytest.mark.parametrize(
    'options',
    [
        ['--head', 'mask'],
        ['--flip'],
        ['--scales', '0.5', '1.5'],
        ['--corruption', 'thermal_blackout', '--severity', '5'],
    ],
)
def test_evaluate_options_reach_the_network(folders, checkpoint, options):
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val']
    arguments += ['--checkpoint', checkpoint, '--json', folders / 'figures.json']
    found = []
    for more in ([], options):
        assert run('evaluate', *arguments, *more) == 0
        found.append(json.loads((folders / 'figures.json').read_text()))
    plain, with_options = found
    assert with_options['confusion'] != plain['confusion']
    assert with_options['settings'] != plain['settings']
    assert with_options.keys() == plain.keys()


def test_evaluate_prints_json_where_no_file_is_named(capsys, folders, checkpoint):
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val']
    assert run('evaluate', '--checkpoint', checkpoint, *arguments) == 0
    assert json.loads(capsys.readouterr().out)['frames'] == 3


def test_predict_and_replay_with_a_homography(folders, checkpoint):
    matrix = np.array([[1.5, 0.1, -20], [0, 1.4, 5], [1e-3, 0, 1]])
    write_homography(folders / 'h.yaml', matrix, [])
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    model = ['--checkpoint', checkpoint, '--homography', folders / 'h.yaml']
    assert run('predict', *images, *model, '--out', folders / 'labels_found') == 0
    predictor = Predictor(checkpoint, homography=matrix)
    truth = folders / 'truth'
    truth.mkdir()
    differ = 0
    for name in ('00001D', '00002N', '00003N'):
        pair = (
            read(folders / 'rgb' / f'{name}.png')[..., ::-1],
            read(folders / 'thermal' / f'{name}.png'),
        )
        expected = predictor.predict(*pair).labels
        differ += (Predictor(checkpoint).predict(*pair).labels != expected).sum()
        found = read(folders / 'labels_found' / f'{name}_labels.png')
        np.testing.assert_array_equal(found, expected)
        assert cv2.imwrite(str(truth / f'{name}.png'), found)
    assert differ > 0
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    out = folders / 'replay.json'
    assert run('replay', folders / 'bag', *model, '--labels', truth, '--json', out) == 0
    assert json.loads(out.read_text())['metrics']['pixel_accuracy'] == 100


def test_info(capsys, checkpoint):
    assert run('info', checkpoint) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['labels'] == MFNET.to_dict()
    assert described['parameters']['total'] >= described['parameters']['trainable'] > 100_000
    assert described['bytes'] == checkpoint.stat().st_size
    assert described['flops']['pair'] > 1e9
    assert run('info', checkpoint, '--height', 240, '--width', 320) == 0
    smaller = json.loads(capsys.readouterr().out)['flops']
    assert (smaller['height'], smaller['width']) == (240, 320)
    assert smaller['pair'] < described['flops']['pair'] / 3
    assert '0x64' in expect_error(capsys, None, 'info', checkpoint, '--height', 64, '--width', 0)


def test_make_bag_and_replay(capsys, folders, checkpoint):
    images = [f'--{part}={folders / part}' for part in ('rgb', 'thermal', 'labels')]
    bag = folders / 'bag'
    assert run('make-bag', *images, '--out', bag, '--rate', 20, '--storage', 'sqlite3') == 0
    assert '3  /ground_truth/labels' in capsys.readouterr().out
    out = folders / 'replay.json'
    assert run('replay', bag, '--checkpoint', checkpoint, '--json', out) == 0
    from_topic = json.loads(out.read_text())
    assert from_topic['pairs'] == from_topic['frames_with_truth'] == 3
    capsys.readouterr()
    assert run('replay', bag, '--checkpoint', checkpoint, '--labels', folders / 'labels') == 0
    from_folder = json.loads(capsys.readouterr().out)
    assert from_folder['metrics'] == from_topic['metrics']


def test_make_bag_with_faults(capsys, folders, checkpoint):
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    faults = ['--jitter', 0.01, '--thermal-offset', 0.02, '--freeze', '0.1:1', '--seed', 5]
    bag = folders / 'bag'
    assert run('make-bag', *images, '--out', bag, '--rate', 2, *faults) == 0
    out = folders / 'replay.json'
    assert run('replay', bag, '--checkpoint', checkpoint, '--json', out) == 0
    result = json.loads(out.read_text())
    assert result['skew_ms'] == {'median': 20.0, 'max': 20.0}
    assert result['modalities'] == {'both': 1, 'rgb': 2}
    assert result['stalls'] == {'thermal_frozen': 2}
