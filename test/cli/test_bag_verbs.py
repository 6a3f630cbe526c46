"""`sartm make-bag` and `sartm replay`, with two threads as on a user's machine."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml
from command_line import NAMES, read, run
from untrained_checkpoint import save_untrained

from sartm_model.inference.predictor import Predictor
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.registration.homography import write_homography

pytestmark = pytest.mark.usefixtures('two_threads', 'bag_verbs')


def test_predict_and_replay_with_a_homography(folders, nano_checkpoint):
    matrix = np.array([[1.5, 0.1, -20], [0, 1.4, 5], [1e-3, 0, 1]])
    write_homography(folders / 'h.yaml', matrix, [])
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    model = ['--checkpoint', nano_checkpoint, '--homography', folders / 'h.yaml']
    assert run('predict', *images, *model, '--out', folders / 'labels_found') == 0
    predictor = Predictor(nano_checkpoint, homography=matrix)
    ground_truth = folders / 'ground_truth'
    ground_truth.mkdir()
    differ = 0
    for name in NAMES:
        pair = (
            read(folders / 'rgb' / f'{name}.png')[..., ::-1],
            read(folders / 'thermal' / f'{name}.png'),
        )
        expected = predictor.predict(*pair).labels
        differ += (Predictor(nano_checkpoint).predict(*pair).labels != expected).sum()
        found = read(folders / 'labels_found' / f'{name}_labels.png')
        np.testing.assert_array_equal(found, expected)
        assert cv2.imwrite(str(ground_truth / f'{name}.png'), found)
    assert differ > 0
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    out = folders / 'replay.json'
    assert run('replay', folders / 'bag', *model, '--labels', ground_truth, '--json', out) == 0
    assert json.loads(out.read_text())['metrics']['pixel_accuracy'] == 100


def test_make_bag_and_replay(capsys, folders, nano_checkpoint):
    images = [f'--{part}={folders / part}' for part in ('rgb', 'thermal', 'labels')]
    bag = folders / 'bag'
    assert run('make-bag', *images, '--out', bag, '--rate', 20, '--storage', 'sqlite3') == 0
    assert '3  /ground_truth/labels' in capsys.readouterr().out
    out = folders / 'replay.json'
    assert run('replay', bag, '--checkpoint', nano_checkpoint, '--json', out) == 0
    from_topic = json.loads(out.read_text())
    assert from_topic['pairs'] == from_topic['frames_with_truth'] == 3
    capsys.readouterr()
    assert run('replay', bag, '--checkpoint', nano_checkpoint, '--labels', folders / 'labels') == 0
    from_folder = json.loads(capsys.readouterr().out)
    assert from_folder['metrics'] == from_topic['metrics']


def test_replay_by_an_exported_file_with_a_range_of_its_own(folders, nano_checkpoint):
    pytest.importorskip('onnxruntime', reason='needs onnxruntime')
    images = [f'--{part}={folders / part}' for part in ('rgb', 'thermal')]
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    height, width = read(folders / 'rgb' / f'{NAMES[0]}.png').shape[:2]
    export = ['export', '--checkpoint', nano_checkpoint, '--height', height, '--width', width]
    file = folders / 'nano.onnx'
    assert run(*export, '--thermal-range', 10, 200, '--out', file) == 0
    assert run('replay', folders / 'bag', '--checkpoint', file) == 0


def test_replay_takes_the_parameters_of_the_node(capsys, folders, nano_checkpoint):
    """Topics, offset and the scaling of thermal; what is given beside the file counts more."""
    images = [f'--{part}={folders / part}' for part in ('rgb', 'thermal')]
    bag, params, out = folders / 'bag', folders / 'params.yaml', folders / 'replay.json'
    assert run('make-bag', *images, '--out', bag, '--thermal-offset', 0.4, '--rate', 2) == 0
    thermal = {'range': 'fixed', 'low': 60, 'high': 70}
    values = {
        'checkpoint': str(nano_checkpoint),
        'thermal_topic': 'thermal/image_raw',
        'sync': {'thermal_offset': -0.4, 'max_wait': 0.5},
        'thermal': thermal,
    }
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    predictor = Predictor(nano_checkpoint, thermal_settings=ThermalSettings('fixed', 60, 70))
    truth = folders / 'ground_truth'
    truth.mkdir()
    for name in NAMES:
        pair = [read(folders / part / f'{name}.png') for part in ('rgb', 'thermal')]
        labels = predictor.predict(pair[0][..., ::-1], pair[1]).labels
        assert cv2.imwrite(str(truth / f'{name}.png'), labels)
    options = ['--labels', truth, '--json', out]
    assert run('replay', bag, *options) == 2  # no pairs by the defaults
    assert run('replay', bag, '--params', params, *options) == 0
    result = json.loads(out.read_text())
    assert (result['pairs'], result['metrics']['pixel_accuracy']) == (3, 100)
    assert result['checkpoint'] == str(nano_checkpoint)

    assert 'fixed range' not in capsys.readouterr().err
    thermal |= {'low': 28000, 'high': 32000}
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    assert run('replay', bag, '--params', params, *options) == 0
    warning = json.loads(out.read_text())['range_warning']
    assert 'outside of the fixed range from 28000 to 32000' in warning
    assert warning in capsys.readouterr().err

    values['sync'] = {'policy': 'approximate', 'max_skew': 0.5}
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    capsys.readouterr()
    assert run('replay', bag, '--params', params, '--checkpoint', 'demo', *options) == 0
    assert 'sync.policy is approximate, which only the node has' in capsys.readouterr().err
    assert json.loads(out.read_text())['checkpoint'] == 'demo'
    assert run('replay', bag, '--params', params, '--thermal-topic', '/no', *options) == 2


def test_make_bag_with_faults(capsys, folders, nano_checkpoint):
    images = ['--rgb', folders / 'rgb', '--thermal', folders / 'thermal']
    faults = ['--jitter', 0.01, '--thermal-offset', 0.02, '--freeze', '0.1:1', '--seed', 5]
    bag = folders / 'bag'
    assert run('make-bag', *images, '--out', bag, '--rate', 2, *faults) == 0
    out = folders / 'replay.json'
    assert run('replay', bag, '--checkpoint', nano_checkpoint, '--json', out) == 0
    result = json.loads(out.read_text())
    assert result['skew_ms'] == {'median': 20.0, 'max': 20.0}
    assert result['modalities'] == {'both': 1, 'rgb': 2}
    assert result['stalls'] == {'thermal_frozen': 2}


def test_replay_of_another_sensor(capsys, folders):
    checkpoint = save_untrained(folders / 'rgbd.safetensors', modalities=('rgb', 'depth'))
    depths = {name: 1000 + 50 * index for index, name in enumerate(NAMES)}
    (folders / 'depth').mkdir()
    for name, nearest in depths.items():
        ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint16)
        assert cv2.imwrite(str(folders / 'depth' / f'{name}.png'), ramp + nearest)
    images = ['--rgb', folders / 'rgb', '--x', f'depth={folders / "depth"}']
    assert run('make-bag', *images, '--out', folders / 'bag') == 0
    arguments = ['replay', folders / 'bag', '--checkpoint', checkpoint]
    capsys.readouterr()
    assert run(*arguments, '--x-modality', 'depth') == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result['modalities'] == {'both': 3}
    assert 'set x_modality' not in printed.err
    # A file of a node with an event camera; x_topic follows the option.
    (folders / 'event.yaml').write_text('sartm: {ros__parameters: {x_modality: event}}')
    assert run(*arguments, '--params', folders / 'event.yaml', '--x-modality', 'depth') == 0
    assert json.loads(capsys.readouterr().out)['modalities'] == {'both': 3}
    # A file that the options alone complete.
    values = '{x_topic: depth/image_raw, x_transport: raw, sync: {max_skew: 0.01}}'
    (folders / 'topic.yaml').write_text(f'sartm: {{ros__parameters: {values}}}')
    assert run(*arguments, '--params', folders / 'topic.yaml', '--x-modality', 'depth') == 0
    assert json.loads(capsys.readouterr().out)['modalities'] == {'both': 3}
    # Without the option RGB alone is left, and a line says how to have both.
    assert run(*arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)['modalities'] == {'rgb': 3}
    assert 'sartm replay: thermal_topic is not used: the network takes rgb and depth' in printed.err
    assert run(*arguments, '--x-topic', '/depth/image_raw') == 2
    assert 'parameter x_topic is set; with x_modality thermal' in capsys.readouterr().err
