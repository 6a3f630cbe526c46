"""Parameter files of the node, read without ROS, and what `predict` makes of them."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from sartm_model.cli.main import main
from sartm_model.cli.options import PARAMS_PLUGIN
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_ros.settings.cameras import camera_topics
from sartm_ros.settings.loading import predictor_options
from sartm_ros.settings.parameter_file import read_parameter_file
from sartm_ros.settings.parameters import Parameters

ROOT = Path(__file__).resolve().parents[2]
HOMOGRAPHY = [1.0, 0.0, 9.0, 0.0, 1.0, 4.0, 0.0, 0.0, 1.0]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write_file(text: str) -> Path:
        path = tmp_path / 'params.yaml'
        path.write_text(text)
        return path

    return write_file


def test_the_file_with_the_defaults_gives_the_defaults():
    expected = replace(
        Parameters(), rgb_topic='/camera/color/image_raw', thermal_topic='/thermal/image_raw'
    )
    assert read_parameter_file(ROOT / 'config' / 'sartm.yaml') == expected


def test_an_empty_topic_stays_empty(write):
    found = read_parameter_file(write("/front/sartm: {ros__parameters: {rgb_topic: ''}}"))
    assert (found.rgb_topic, found.thermal_topic) == ('', '/front/thermal/image_raw')


def test_sections_apply_as_in_ros(write):
    """Of any node and of this one, the later ones over the earlier ones; names with dots too."""
    path = write("""
/**:
  ros__parameters:
    use_sim_time: true
    of_another_node: 1
    sync: {max_skew: 0.2, max_wait: 1}
    thermal:
      range: fixed
      low: 100
      high: 200
other:
  ros__parameters: {sync.max_skew: 0.7}
front:
  sartm:
    ros__parameters:
      sync.max_skew: 0.3
      rgb_topic: rgb/image
      thermal_topic: ~/thermal
      qos_overrides: {/x: {subscription: {depth: 3}}}
""")
    assert read_parameter_file(path) == replace(
        Parameters(),
        sync_max_skew_s=0.3,
        sync_max_wait_s=1.0,
        thermal_range='fixed',
        thermal_low=100.0,
        thermal_high=200.0,
        rgb_topic='/front/rgb/image',
        thermal_topic='/front/sartm/thermal',
    )


@pytest.mark.parametrize('name', ['sartm', '/sartm', '/**/sartm', '/*', '/**'])
def test_names_that_mean_this_node(write, name):
    path = write(f'{name}: {{ros__parameters: {{stall_after: 0.5}}}}')
    assert read_parameter_file(path).stall_after_s == 0.5


@pytest.mark.parametrize(
    ('text', 'expected'), [('5e-2', 0.05), ('1e-05', 1e-5), ('+2E0', 2.0), ('.5e-1', 0.05)]
)
def test_numbers_without_a_point_are_numbers_as_in_ros(write, text, expected):
    path = write(f'sartm: {{ros__parameters: {{sync: {{max_skew: {text}}}}}}}')
    assert read_parameter_file(path).sync_max_skew_s == expected


@pytest.mark.parametrize(
    ('in_file', 'given', 'expected'),
    [
        ('x_modality: depth', {'x_modality': 'event'}, '/front/event/image_raw'),
        ('x_modality: depth', {'x_modality': 'thermal'}, '/front/thermal/image_raw'),
        ('x_modality: depth, x_topic: /near', {'x_modality': 'event'}, '/near'),
        ('x_modality: depth', {'x_topic': '/near'}, '/near'),
        ('x_topic: /near, x_transport: raw', {'x_modality': 'depth'}, '/near'),
    ],
)
def test_another_modality_given_beside_the_file_has_its_own_topic(write, in_file, given, expected):
    path = write(f'front/sartm: {{ros__parameters: {{{in_file}}}}}')
    _, topic = camera_topics(read_parameter_file(path, given)).values()
    assert topic == expected


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('a: [1', 'is not a YAML file'),
        ('just text', "has no parameters of the node; expected a section '/**' or 'sartm'"),
        ('other: {ros__parameters: {stall_after: 1}}', 'has no parameters of the node'),
        ('sartm: {stall_after: 1}', 'has no parameters of the node'),
        (
            '{a/sartm: {ros__parameters: {stall_after: 1}}, b: {sartm: {ros__parameters: {}}}}',
            'has the parameters of 2 nodes, in the namespaces /a, /b',
        ),
        (
            '/**: {ros__parameters: {sync: {max_skw: 1}}}',
            'no parameter sync.max_skw (is sync.max_skew meant?)',
        ),
        ('/**: {ros__parameters: {sync: {max_skew: x}}}', "parameter sync.max_skew is 'x'"),
        ('/**: {ros__parameters: {thermal: {low: 9, high: 1}}}', 'thermal.low is 9; expected'),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, text, expected):
    path = write(text)
    with pytest.raises(SartmError) as failure:
        read_parameter_file(path)
    assert str(failure.value).startswith(str(path))
    assert expected in str(failure.value)
    assert '\n' not in str(failure.value)


def test_what_is_given_beside_a_file_is_named_with_it(write):
    path = write('sartm: {ros__parameters: {thermal: {range: fixed}}}')
    with pytest.raises(SartmError) as failure:
        read_parameter_file(path, {'x_modality': 'depth'})
    assert str(failure.value).startswith(f"{path} with x_modality 'depth': parameter thermal.range")


def test_a_missing_file(tmp_path):
    with pytest.raises(SartmError, match='does not exist; expected a ROS parameter file'):
        read_parameter_file(tmp_path / 'x.yaml')


def test_a_checkpoint_may_be_in_the_home_folder(monkeypatch):
    """No shell replaces the ~ of a parameter file, or of `checkpoint:=~/best.safetensors`."""
    monkeypatch.setenv('HOME', '/home/robot')
    for given, expected in (
        ('~/best.safetensors', '/home/robot/best.safetensors'),
        ('demo', 'demo'),
    ):
        assert predictor_options(Parameters(checkpoint=given))['checkpoint'] == expected


@pytest.fixture(scope='session')
def params_plugin():
    """Fail if the installed package does not tell the command where --params is read."""
    if not entry_points(group=PARAMS_PLUGIN):
        pytest.fail(f'the package was installed before setup.py named {PARAMS_PLUGIN}: make setup')


def test_predict_takes_them_from_the_file(params_plugin, nano_checkpoint, tmp_path, write):
    """Range, shift and homography; an option counts more than the file."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    counts = np.kron(rng.integers(28_00, 3_200, (6, 8)), np.ones((8, 8), int)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / 'rgb.png'), rgb[..., ::-1])
    assert cv2.imwrite(str(tmp_path / 'thermal.png'), counts << 2)
    thermal = {'range': 'fixed', 'low': 2_900, 'high': 3_100, 'shift': 2, 'homography': HOMOGRAPHY}
    values = {'checkpoint': str(nano_checkpoint), 'device': 'cpu', 'thermal': thermal}
    path = write(yaml.safe_dump({'/**': {'ros__parameters': values}}))

    def labels(*options: str) -> np.ndarray:
        images = ['--rgb', str(tmp_path / 'rgb.png'), '--thermal', str(tmp_path / 'thermal.png')]
        out = ['--out', str(tmp_path / 'out'), '--params', str(path)]
        assert main(['predict', *images, *out, *options]) == 0
        return cv2.imread(str(tmp_path / 'out' / 'rgb_labels.png'), cv2.IMREAD_UNCHANGED)

    predictor = Predictor(
        nano_checkpoint,
        device='cpu',
        thermal_settings=ThermalSettings('fixed', 2_900, 3_100),
        homography=np.reshape(HOMOGRAPHY, (3, 3)),
    )
    expected = predictor.predict(rgb, counts).labels
    np.testing.assert_array_equal(labels(), expected)
    predictor.homography = None
    assert (predictor.predict(rgb, counts).labels != expected).any()
    predictor.thermal_settings = ThermalSettings()
    assert (predictor.predict(rgb, counts).labels != expected).any()
    demo = Predictor(device='cpu', thermal_settings=ThermalSettings('fixed', 2_900, 3_100))
    demo.homography = np.reshape(HOMOGRAPHY, (3, 3))
    np.testing.assert_array_equal(labels('--checkpoint', 'demo'), demo.predict(rgb, counts).labels)
