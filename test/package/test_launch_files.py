"""Launch file and configuration, as far as they can be checked with and without `launch`."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from sartm_ros.node.parameters import Parameters, to_dict
from sartm_ros.node.ros_parameters import parse

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / 'launch' / 'sartm.launch.py'
ARGUMENTS = {
    'checkpoint',
    'device',
    'precision',
    'rgb_topic',
    'thermal_topic',
    'namespace',
    'params_file',
    'use_sim_time',
    'log_level',
    'autostart',
    'rviz',
    'fastdds_profile',
}


def flatten(tree, prefix=''):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def test_the_parameter_file_lists_every_parameter_at_its_default():
    document = yaml.safe_load((ROOT / 'config' / 'sartm.yaml').read_text())
    values = dict(flatten(document['/**']['ros__parameters']))
    assert values == to_dict(Parameters())
    assert parse(values) == Parameters()


def test_the_launch_file_declares_and_describes_its_arguments():
    tree = ast.parse(LAUNCH_FILE.read_text())
    compile(tree, str(LAUNCH_FILE), 'exec')
    declared = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, 'id', '') == 'DeclareLaunchArgument':
            options = {keyword.arg: keyword.value for keyword in call.keywords}
            declared[ast.literal_eval(call.args[0])] = options
    assert set(declared) == ARGUMENTS
    for name, options in declared.items():
        assert {'default_value', 'description'} <= set(options), name
        text = [part.value for part in ast.walk(options['description']) if hasattr(part, 'value')]
        assert any(isinstance(part, str) and len(part) > 10 for part in text), name


def test_the_launch_file_overrides_only_parameters_that_exist():
    constants = {}
    for node in ast.parse(LAUNCH_FILE.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ('TEXTS', 'SWITCHES'):
            constants[node.targets[0].id] = ast.literal_eval(node.value)
    defaults = to_dict(Parameters()) | {'use_sim_time': False}
    assert {type(defaults[name]) for name in constants['TEXTS']} == {str}
    assert {type(defaults[name]) for name in constants['SWITCHES']} == {bool}


def test_the_launch_description():
    """With the real `launch`: every substitution resolves, an empty argument overrides nothing."""
    launch = pytest.importorskip('launch', reason='needs ROS 2 (launch); it is not on PyPI')
    pytest.importorskip('launch_ros', reason='needs ROS 2 (launch_ros)')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    try:
        description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    except LookupError:
        pytest.skip('sartm_ros is not installed into this ROS environment (colcon build)')
    context = launch.LaunchContext()
    declared = {argument.name for argument in description.get_launch_arguments()}
    assert declared == ARGUMENTS
    for entity in description.entities:
        if isinstance(entity, launch.actions.DeclareLaunchArgument):
            entity.execute(context)
    context.launch_configurations['checkpoint'] = 'demo'
    functions = [e for e in description.entities if isinstance(e, launch.actions.OpaqueFunction)]
    (node,) = functions[0].execute(context)
    assert node.node_executable == 'sartm_node'


def test_the_fast_dds_profile_holds_images():
    name = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    root = ElementTree.parse(ROOT / 'config' / 'fastdds_images.xml').getroot()
    transports = {
        item.findtext(f'{name}transport_id'): item
        for item in root.iter(f'{name}transport_descriptor')
    }
    (participant,) = root.iter(f'{name}participant')
    assert participant.get('is_default_profile') == 'true'
    used = [item.text for item in participant.iter(f'{name}transport_id')]
    assert sorted(used) == sorted(transports)
    (shm,) = (t for t in transports.values() if t.findtext(f'{name}type') == 'SHM')
    assert int(shm.findtext(f'{name}maxMessageSize')) == 2 * 2**20
    assert int(shm.findtext(f'{name}segment_size')) == 16 * 2**20


def test_rviz_shows_the_nodes_topics():
    document = yaml.safe_load((ROOT / 'config' / 'sartm.rviz').read_text())
    topics = [item['Topic']['Value'] for item in document['Visualization Manager']['Displays']]
    settings = Parameters()
    inputs = [f'/{settings.rgb_topic}', f'/{settings.thermal_topic}']
    assert topics[:3] == [*inputs, '/sartm/overlay']
