"""Launch file and configuration, as far as they can be checked with and without `launch`."""

from __future__ import annotations

import ast
import os
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from sartm_ros.settings.fastdds import use_image_profile
from sartm_ros.settings.parameters import Parameters, to_dict
from sartm_ros.settings.ros_parameters import parse

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / 'launch' / 'sartm.launch.py'
ARGUMENTS = {
    'checkpoint',
    'device',
    'precision',
    'rgb_topic',
    'thermal_topic',
    'x_modality',
    'x_topic',
    'namespace',
    'params_file',
    'use_sim_time',
    'log_level',
    'autostart',
    'respawn',
    'rviz',
    'fixed_frame',
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
    constants = {'TEXTS': ()}
    for node in ast.parse(LAUNCH_FILE.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ('TOPICS', 'TEXTS', 'SWITCHES'):
            values = [leaf.value for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)]
            name = node.targets[0].id.replace('TOPICS', 'TEXTS')
            constants[name] = (*constants.get(name, ()), *values)
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


class Recorded:
    """Stands for an action of `launch` or `launch_ros`: it has the arguments of its call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options


class LaunchConfiguration:
    """Stands for the substitution: `perform` looks an argument up in the context, a dict here."""

    def __init__(self, name: str, default: str | None = None) -> None:
        self.name, self.default = name, default

    def perform(self, context: dict[str, str]) -> str:
        if self.default is None:
            return context[self.name]
        return context.get(self.name, self.default)


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Return a function that returns what the launch file starts, given arguments.

    `launch` and `launch_ros` are stand-ins, and the package is installed in a ROS workspace without
    rviz2, where the function `install_rviz` of the fixture installs it.
    """
    pytest.importorskip('ament_index_python', reason='needs ROS 2 (ament_index_python)')
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / 'sartm_ros').touch()
    (tmp_path / 'share' / 'sartm_ros').mkdir()
    (tmp_path / 'share' / 'sartm_ros' / 'config').symlink_to(ROOT / 'config')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    names = {
        'launch': ('LaunchContext', 'LaunchDescription'),
        'launch.actions': ('DeclareLaunchArgument', 'LogInfo', 'OpaqueFunction'),
        'launch.substitutions': (),
        'launch_ros': (),
        'launch_ros.actions': ('LifecycleNode', 'Node'),
    }
    kinds = {}
    for module_name, classes in names.items():
        module = ModuleType(module_name)
        for name in classes:
            kinds[name] = type(name, (Recorded,), {})
            setattr(module, name, kinds[name])
        monkeypatch.setitem(sys.modules, module_name, module)
    sys.modules['launch.substitutions'].LaunchConfiguration = LaunchConfiguration

    def launch(pushed_namespace: str = '', **arguments: str) -> list[Recorded]:
        (entities,) = runpy.run_path(str(LAUNCH_FILE))['generate_launch_description']().args
        declared = [e for e in entities if isinstance(e, kinds['DeclareLaunchArgument'])]
        context = {e.args[0]: e.options['default_value'] for e in declared}
        assert set(arguments) <= set(context)
        (function,) = (e for e in entities if isinstance(e, kinds['OpaqueFunction']))
        pushed = {'ros_namespace': pushed_namespace} if pushed_namespace else {}
        return function.options['function'](context | arguments | pushed)

    launch.install_rviz = lambda: (index / 'rviz2').touch()
    return launch


def test_by_default_the_parameter_file_decides(launched):
    (node,) = launched()
    assert type(node).__name__ == 'LifecycleNode'
    assert node.options['executable'] == 'sartm_node'
    file, overrides = node.options['parameters']
    assert Path(file).samefile(ROOT / 'config' / 'sartm.yaml')
    assert overrides == {}
    assert node.options['respawn'] is False


@pytest.mark.parametrize(
    ('text', 'expected'), [('true', True), ('True', True), ('1', True), ('False', False)]
)
def test_a_switch_may_be_spelled_as_in_nav2(launched, text, expected):
    (node,) = launched(use_sim_time=text, autostart=text, respawn=text, checkpoint='a.safetensors')
    assert node.options['parameters'][1] == {
        'use_sim_time': expected,
        'autostart': expected,
        'checkpoint': 'a.safetensors',
    }
    assert node.options['respawn'] is expected


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ({'use_sim_time': 'on'}, "argument use_sim_time is 'on'; expected true or false"),
        ({'params_file': '/nowhere/sartm.yaml'}, 'params_file is /nowhere/sartm.yaml; expected'),
    ],
)
def test_a_wrong_argument_is_an_error(launched, arguments, expected):
    with pytest.raises(RuntimeError, match=expected):
        launched(**arguments)


def test_a_parameter_file_may_lie_in_the_home_folder(launched, monkeypatch, tmp_path):
    """A shell does not expand the tilde in params_file:=~/mine.yaml."""
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'mine.yaml').write_text('{}')
    (node,) = launched(params_file='~/mine.yaml')
    assert node.options['parameters'][0] == str(tmp_path / 'mine.yaml')


@pytest.mark.parametrize(
    ('environment', 'argument', 'expected'),
    [
        ({}, 'true', {'FASTRTPS_DEFAULT_PROFILES_FILE': ROOT / 'config' / 'fastdds_images.xml'}),
        ({}, 'false', {'FASTDDS_BUILTIN_TRANSPORTS': 'DEFAULT'}),
        ({'FASTRTPS_DEFAULT_PROFILES_FILE': '/own.xml'}, 'true', {}),
        ({'FASTRTPS_DEFAULT_PROFILES_FILE': '/own.xml'}, 'false', {}),
    ],
)
def test_the_fast_dds_profile_is_given_to_the_processes_alone(
    launched, monkeypatch, environment, argument, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    (node,) = launched(fastdds_profile=argument)
    assert node.options['additional_env'] == {name: str(v) for name, v in expected.items()}
    assert os.environ == before


def test_without_rviz_a_line_says_so_and_the_node_starts(launched):
    node, line = launched(rviz='true')
    assert node.options['executable'] == 'sartm_node'
    assert type(line).__name__ == 'LogInfo'
    assert 'rviz2 is not installed' in line.options['msg']


@pytest.mark.parametrize('transport', ['compressed', 'compressedDepth'])
def test_rviz_shows_the_topics_of_the_node(launched, tmp_path, transport):
    """A topic comes from the argument, else from the parameter file, else it is the default."""
    launched.install_rviz()
    parameters = {
        'rgb_topic': '/left/image',
        'thermal_topic': f'boson/{transport}',
        'use_sim_time': False,
    }
    file = tmp_path / 'mine.yaml'
    sections = {'front': {'sartm': {'ros__parameters': parameters}}}
    sections['viewer'] = {'ros__parameters': {'thermal_topic': '/of/another/node'}}
    file.write_text(yaml.safe_dump(sections))
    _, rviz = launched(
        rviz='True',
        params_file=str(file),
        rgb_topic='/right/image',
        namespace='front',
        fixed_frame='camera_front',
        use_sim_time='true',
    )
    assert rviz.options['executable'] == 'rviz2'
    assert rviz.options['namespace'] == 'front'
    assert rviz.options['arguments'][2:] == ['-f', 'camera_front']
    assert rviz.options['parameters'] == [{'use_sim_time': True}]
    remappings = dict(rviz.options['remappings'])
    document = yaml.safe_load(Path(rviz.options['arguments'][1]).read_text())
    displays = document['Visualization Manager']['Displays']
    shown = {item['Name']: remappings[item['Topic']['Value']] for item in displays}
    assert shown == {
        'RGB': '/right/image',
        'Thermal': 'boson',
        'Overlay': 'sartm/overlay',
        'Confidence': 'sartm/confidence',
    }


def test_rviz_has_the_clock_of_the_node(launched, tmp_path):
    """Without the argument use_sim_time that of the parameter file counts, for both."""
    launched.install_rviz()
    file = tmp_path / 'mine.yaml'
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'use_sim_time': True}}}))
    for arguments, expected in (({}, True), ({'use_sim_time': 'false'}, False)):
        _, rviz = launched(rviz='true', params_file=str(file), **arguments)
        assert rviz.options['parameters'] == [{'use_sim_time': expected}]


def test_a_bringup_sets_the_clock_where_neither_argument_nor_file_does(launched):
    """A parameter of the action would override the one that SetParameter sets."""
    launched.install_rviz()
    _, rviz = launched(rviz='true')
    assert not rviz.options['parameters']


SECTIONS = ('/front/sartm', '/**', '/rear/sartm', '/*/sartm', 'sartm', '/**/front/*', '/front/**')


def rgb_topic_of_ros(file: Path, namespace: str) -> str:
    """Ask ROS which `rgb_topic` a parameter file gives the node of this namespace."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    import ros_helpers  # noqa: F401  sets the ROS environment of this process

    # A fixture takes it away. DDS reads it once in a process, and later tests send images.
    use_image_profile()
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(file)], context=context)
    try:
        node = rclpy.create_node(
            'sartm', namespace=namespace, context=context, start_parameter_services=False
        )
        topic = node.declare_parameter('rgb_topic', '').value
        node.destroy_node()
        return topic
    finally:
        context.shutdown()


@pytest.mark.parametrize(
    ('pushed', 'namespace', 'full_namespace'),
    [
        ('', '', '/'),
        ('', 'front', '/front'),
        ('', '/rear', '/rear'),
        ('robot', 'front', '/robot/front'),
        ('/robot', '', '/robot'),
        ('robot', '/front', '/front'),
    ],
)
def test_rviz_has_the_cameras_of_its_own_node(
    launched, tmp_path, monkeypatch, pushed, namespace, full_namespace
):
    """Of a file with the parameters of several nodes, in any order, as ROS gives them the node."""
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    launched.install_rviz()
    for first in range(len(SECTIONS)):
        names = SECTIONS[first:] + SECTIONS[:first]
        sections = {n: {'ros__parameters': {'rgb_topic': f'/from{i}'}} for i, n in enumerate(names)}
        file = tmp_path / 'robots.yaml'
        file.write_text(yaml.safe_dump(sections, sort_keys=False))
        _, rviz = launched(pushed, rviz='true', params_file=str(file), namespace=namespace)
        shown = dict(rviz.options['remappings'])['/camera/color/image_raw']
        assert shown == rgb_topic_of_ros(file, full_namespace), names


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


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ({'x_modality': 'depth', 'x_topic': '/camera/aligned'}, '/camera/aligned'),
        ({'x_modality': 'event'}, 'event/image_raw'),
        ({}, 'thermal/image_raw'),
    ],
)
def test_another_second_camera_is_given_to_the_node_and_shown(launched, arguments, expected):
    launched.install_rviz()
    node, rviz = launched(rviz='true', **arguments)
    assert node.options['parameters'][1] == arguments
    assert dict(rviz.options['remappings'])['/thermal/image_raw'] == expected
