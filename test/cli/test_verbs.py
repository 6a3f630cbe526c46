"""What `sartm predict`, `evaluate` and `info` write, compared with the predictor's own results.

They run with two threads, as on a user's machine, so that the parallel CPU engine makes the labels.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import HEIGHT, NAMES, WIDTH, expect_error, read, run
from html_page import Page
from toy_model import ENTRY

from sartm_model.config import ModelConfig
from sartm_model.data import synthetic
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import registry
from sartm_model.models.checkpoint import save

pytestmark = pytest.mark.usefixtures('two_threads')


def test_predict_folders(folders, nano_checkpoint):
    # Outputs have the size of RGB, also with 16-bit thermal images of half the size.
    for path in (folders / 'thermal').iterdir():
        half = cv2.resize(read(path), (WIDTH // 2, HEIGHT // 2)).astype(np.uint16) * 50
        assert cv2.imwrite(str(path), half)
    arguments = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    arguments += ['--checkpoint', nano_checkpoint, '--out', folders / 'out']
    assert run('predict', *arguments) == 0
    assert {p.name for p in (folders / 'out').iterdir()} == {
        f'{stem}_{kind}.png' for stem in NAMES for kind in ('labels', 'overlay')
    }
    predictor = Predictor(nano_checkpoint)
    assert predictor.device.type == 'cuda' or predictor.engine == 'parallel'
    for stem in NAMES:
        rgb = read(folders / 'rgb' / f'{stem}.png')[..., ::-1]
        expected = predictor.predict(rgb, read(folders / 'thermal' / f'{stem}.png'), overlay=True)
        labels = read(folders / 'out' / f'{stem}_labels.png')
        assert labels.dtype == np.uint8
        assert labels.shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(labels, expected.labels)
        overlay = read(folders / 'out' / f'{stem}_overlay.png')[..., ::-1]
        np.testing.assert_array_equal(overlay, expected.overlay)


def test_predict_warns_once_where_a_fixed_range_leaves_thermal_without_contrast(
    capsys, folders, nano_checkpoint
):
    images = [f'--{part}={folders / part}' for part in ('rgb', 'thermal')]
    params = folders / 'params.yaml'
    for low, high, warned in ((0, 255, 0), (28000, 32000, 1)):
        thermal = {'range': 'fixed', 'low': low, 'high': high}
        values = {'checkpoint': str(nano_checkpoint), 'thermal': thermal}
        params.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
        assert run('predict', *images, '--params', params, '--out', folders / 'out') == 0
        text = capsys.readouterr().err
        assert text.count(f'warning: {NAMES[0]}: thermal counts') == warned
        assert text.count('fixed range') == warned


def test_predict_a_split_of_a_data_set(folders, nano_checkpoint):
    (folders / 'one.txt').write_text(f'{NAMES[1]}\n')
    model = ['--checkpoint', nano_checkpoint, '--out']
    source = ['--dataset', 'mfnet', '--root', folders, '--split', 'one']
    assert run('predict', *source, *model, folders / 'split') == 0
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    assert run('predict', *images, *model, folders / 'all') == 0
    written = sorted((folders / 'split').iterdir())
    assert [p.name for p in written] == [f'{NAMES[1]}_{kind}.png' for kind in ('labels', 'overlay')]
    for path in written:
        np.testing.assert_array_equal(read(path), read(folders / 'all' / path.name))


@pytest.mark.parametrize('modality', ['rgb', 'thermal'])
def test_predict_one_modality_of_one_file(folders, nano_checkpoint, modality):
    image = folders / modality / '00002N.png'
    out = folders / 'out'
    arguments = [f'--{modality}', image, '--checkpoint', nano_checkpoint, '--out', out]
    assert run('predict', *arguments) == 0
    given = read(image)
    rgb, thermal = (given[..., ::-1], None) if modality == 'rgb' else (None, given)
    expected = Predictor(nano_checkpoint).predict(rgb, thermal).labels
    np.testing.assert_array_equal(read(out / '00002N_labels.png'), expected)
    assert read(out / '00002N_overlay.png').shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('modality', ['both', 'rgb', 'thermal'])
def test_evaluate(folders, nano_checkpoint, modality):
    out = folders / 'figures.json'
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val', '--json', out]
    assert run('evaluate', '--checkpoint', nano_checkpoint, *arguments, '--modality', modality) == 0
    figures = json.loads(out.read_text())

    predictor = Predictor(nano_checkpoint)
    confusion = np.zeros((9, 9), int)
    for name in NAMES:
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
        'checkpoint': str(nano_checkpoint),
        'dataset': 'mfnet',
        'root': str(folders),
        'split': 'val',
        'modality': modality,
        'modalities': ['rgb', 'thermal'] if modality == 'both' else [modality],
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
def test_evaluate_options_reach_the_network(folders, nano_checkpoint, options):
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val']
    arguments += ['--checkpoint', nano_checkpoint, '--json', folders / 'figures.json']
    found = []
    for more in ([], options):
        assert run('evaluate', *arguments, *more) == 0
        found.append(json.loads((folders / 'figures.json').read_text()))
    plain, with_options = found
    assert with_options['confusion'] != plain['confusion']
    assert with_options['settings'] != plain['settings']
    assert with_options.keys() == plain.keys()


def test_a_report_names_the_images_that_the_network_was_given(folders, nano_checkpoint):
    values = {
        'label_space': 'mfnet',
        'images': {'thermal': 'thermal/{stem}.png'},
        'labels': 'labels/{stem}.png',
        'splits': {'val': 'val.txt'},
    }
    (folders / 'data.yaml').write_text(yaml.safe_dump(values))
    arguments = ['--dataset', 'folder', '--root', folders / 'data.yaml', '--split', 'val']
    arguments += ['--json', folders / 'figures.json', '--report', folders / 'report']
    assert run('evaluate', '--checkpoint', nano_checkpoint, *arguments) == 0
    settings = json.loads((folders / 'figures.json').read_text())['settings']
    assert (settings['modality'], settings['modalities']) == ('both', ['thermal'])
    words = Page((folders / 'report/report.html').read_text()).words
    assert 'thermal' in words
    assert 'RGB' not in words


def test_a_head_that_the_network_does_not_have(capsys, folders, nano_checkpoint):
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val', '--head', 'best']
    assert run('evaluate', '--checkpoint', nano_checkpoint, *arguments) == 2
    assert "'best'; expected one of mean, mask, auxiliary" in capsys.readouterr().err


def test_evaluate_prints_json_without_a_file(capsys, folders, nano_checkpoint):
    arguments = ['--dataset', 'mfnet', '--root', folders, '--split', 'val']
    assert run('evaluate', '--checkpoint', nano_checkpoint, *arguments) == 0
    assert json.loads(capsys.readouterr().out)['frames'] == 3


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Two generated test scenes, and a function that writes a network for some modalities."""
    monkeypatch.setitem(registry.MODELS, 'toy', ENTRY)
    monkeypatch.setitem(synthetic.SPLITS, 'test', (2, 2))

    def write(*modalities: str) -> Path:
        config = ModelConfig(name='toy', size='', modalities=modalities)
        path = tmp_path / f'{"_".join(modalities)}.safetensors'
        save(path, registry.build(config, len(MFNET)), MFNET, {})
        return path

    return write


GENERATED = ('--dataset', 'synthetic', '--split', 'test', '--checkpoint')


def test_generated_scenes_have_the_images_that_the_network_takes(toy, tmp_path):
    checkpoint = toy('rgb', 'depth', 'polarization')
    assert run('predict', *GENERATED, checkpoint, '--out', tmp_path / 'out') == 0
    frame = synthetic.SyntheticScenes('test').with_modalities(('rgb', 'depth', 'polarization'))[1]
    expected = Predictor(checkpoint).predict(frame.images)
    labels = read(tmp_path / 'out' / f'{frame.name}_labels.png')
    np.testing.assert_array_equal(labels, expected.labels)


def test_predict_takes_files_of_another_sensor_and_pairs_of_a_data_set(capsys, toy, tmp_path):
    checkpoint = toy('rgb', 'depth', 'event')
    frame = synthetic.SyntheticScenes('test').with_modalities(('rgb', 'depth', 'event'))[0]
    expected = Predictor(checkpoint).predict(frame.select(('rgb', 'depth'))).labels
    cv2.imwrite(str(tmp_path / 'rgb.png'), frame.images['rgb'][..., ::-1])
    cv2.imwrite(str(tmp_path / 'depth.png'), frame.images['depth'])
    out, x = ('--out', tmp_path / 'out'), ('--x', f'depth={tmp_path / "depth.png"}')
    files = ('predict', '--checkpoint', checkpoint, '--rgb', tmp_path / 'rgb.png', *out)
    assert run(*files, *x) == 0
    np.testing.assert_array_equal(read(tmp_path / 'out' / 'rgb_labels.png'), expected)
    assert run('predict', *GENERATED, checkpoint, *out, '--modality', 'rgb,depth') == 0
    labels = read(tmp_path / 'out' / f'{frame.name}_labels.png')
    np.testing.assert_array_equal(labels, expected)
    for wrong, words in (
        (('--x', 'sonar=here'), 'expected NAME=PATH'),
        ((*x, '--thermal', 'here'), 'both'),
    ):
        assert words in expect_error(capsys, None, *files, *wrong)


def test_an_evaluation_of_a_pair_renders_that_pair_alone(toy, tmp_path, monkeypatch):
    rendered, shoot = set(), synthetic.shoot

    def record(scene, time_s, size, modalities, *more):
        rendered.add(tuple(modalities))
        return shoot(scene, time_s, size, modalities, *more)

    monkeypatch.setattr(synthetic, 'shoot', record)
    checkpoint = toy('rgb', 'depth', 'event')
    pair = ('--modality', 'rgb,event', '--json', tmp_path / 'figures.json')
    assert run('evaluate', *GENERATED, checkpoint, *pair) == 0
    assert rendered == {('rgb', 'event')}
    assert (
        json.loads((tmp_path / 'figures.json').read_text())['settings']['modality'] == 'rgb,event'
    )


def test_a_network_for_images_that_generated_scenes_do_not_have(capsys, toy):
    error = expect_error(capsys, None, 'evaluate', *GENERATED, toy('rgb', 'lidar'))
    assert 'the synthetic scenes have rgb, thermal, depth, event' in error
    assert 'rgb, lidar was asked for' in error


def test_info(capsys, nano_checkpoint):
    assert run('info', nano_checkpoint, '--height', 240, '--width', 320) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['labels'] == MFNET.to_dict()
    assert described['parameters']['total'] >= described['parameters']['trainable'] > 100_000
    assert described['bytes'] == nano_checkpoint.stat().st_size
    assert described['flops']['pair'] > 2.5e8
    assert run('info', nano_checkpoint, '--height', 120, '--width', 160) == 0
    smaller = json.loads(capsys.readouterr().out)['flops']
    assert (smaller['height'], smaller['width']) == (120, 160)
    assert smaller['pair'] < described['flops']['pair'] / 3
    assert 'width' in expect_error(
        capsys, None, 'info', nano_checkpoint, '--height', 64, '--width', 0
    )
