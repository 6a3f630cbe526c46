"""Starts the node `sartm`, and RViz on request.

An empty argument keeps the value of the parameter file. A switch is true, True or 1, or else false,
False or 0.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from sartm_ros.settings.cameras import camera_topics
from sartm_ros.settings.fastdds import image_profile
from sartm_ros.settings.parameter_file import NODE, node_sections
from sartm_ros.settings.parameters import Parameters

CONFIG = Path(get_package_share_directory('sartm_ros')) / 'config'
TOPICS = ('rgb_topic', 'thermal_topic', 'x_modality', 'x_topic')
TEXTS = ('checkpoint', 'device', 'precision', *TOPICS)
SWITCHES = ('autostart', 'use_sim_time')
SWITCH_VALUES = {'': None, 'true': True, '1': True, 'false': False, '0': False}
RESPAWN_DELAY_S = 2.0

ARGUMENTS = [
    DeclareLaunchArgument(
        'params_file',
        default_value=str(CONFIG / 'sartm.yaml'),
        description='YAML file with the parameters.',
    ),
    DeclareLaunchArgument(
        'checkpoint',
        default_value='',
        description="Path of a .safetensors or .onnx file, or 'demo' or 'demo_depth'.",
    ),
    DeclareLaunchArgument(
        'device', default_value='', description='Where the network runs: auto, cpu, cuda, cuda:N.'
    ),
    DeclareLaunchArgument(
        'precision', default_value='', description='Arithmetic: auto, fp16, bf16 or fp32.'
    ),
    DeclareLaunchArgument('rgb_topic', default_value='', description='Topic of the RGB images.'),
    DeclareLaunchArgument(
        'thermal_topic', default_value='', description='Topic of the thermal images.'
    ),
    DeclareLaunchArgument(
        'x_modality',
        default_value='',
        description='What the second camera measures: thermal, depth, event, ...',
    ),
    DeclareLaunchArgument(
        'x_topic',
        default_value='',
        description='Topic of the second camera if x_modality is not thermal.',
    ),
    DeclareLaunchArgument(
        'namespace',
        default_value='',
        description='Namespace of the node, its outputs, and topics without a leading slash.',
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        description='Use the time of /clock, for a bag or a simulation: true or false.',
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='',
        description='Configure and activate the node at the start: true or false.',
    ),
    DeclareLaunchArgument(
        'respawn',
        default_value='false',
        description=f'Start the node again {RESPAWN_DELAY_S:g} s after it has ended.',
    ),
    DeclareLaunchArgument(
        'log_level',
        default_value='info',
        choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='Lowest level that the node logs.',
    ),
    DeclareLaunchArgument(
        'rviz', default_value='false', description='Show images and overlay in RViz.'
    ),
    DeclareLaunchArgument(
        'fixed_frame',
        default_value='camera_color_optical_frame',
        description="RViz's fixed frame: the frame_id of the RGB images, or one known to tf.",
    ),
    DeclareLaunchArgument(
        'fastdds_profile',
        default_value='true',
        description='Give Fast DDS enough shared memory for images in the processes started here; '
        'a profile or transports that the environment chooses are kept. The camera drivers need '
        'the same profile.',
    ),
]


def launch_nodes(context: LaunchContext) -> list[Any]:
    """Return the node with the parameters that were given, and RViz if it is wanted.

    Raises:
        RuntimeError: the parameter file does not exist, or a switch is neither true nor false.
    """
    params_file = Path(_text(context, 'params_file')).expanduser()
    if not params_file.is_file():
        raise RuntimeError(f'params_file is {params_file}; expected an existing file')
    overrides: dict[str, Any] = {name: _text(context, name) for name in TEXTS}
    overrides |= {name: _switch(context, name) for name in SWITCHES}
    overrides = {name: value for name, value in overrides.items() if value not in ('', None)}
    environment = image_profile(_switch(context, 'fastdds_profile') is not False)
    node = LifecycleNode(
        package='sartm_ros',
        executable='sartm_node',
        name='sartm',
        namespace=_text(context, 'namespace'),
        parameters=[str(params_file), overrides],
        ros_arguments=['--log-level', _text(context, 'log_level')],
        additional_env=environment,
        respawn=bool(_switch(context, 'respawn')),
        respawn_delay=RESPAWN_DELAY_S,
        output='screen',
    )
    if not _switch(context, 'rviz'):
        return [node]
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        message = 'rviz:=true has no effect: rviz2 is not installed (apt: ros-$ROS_DISTRO-rviz2)'
        return [node, LogInfo(msg=message)]
    values = _file_values(params_file, _full_name(context)) | overrides
    return [node, _rviz(context, values, environment)]


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` runs."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=launch_nodes)])


def _rviz(context: LaunchContext, values: dict[str, Any], environment: dict[str, str]) -> Node:
    """Return RViz in the node's namespace; remappings lead its topics to those of the node."""
    rgb_topic, x_topic = camera_topics(
        Parameters(**{n: values[n] for n in TOPICS if n in values})
    ).values()
    shown = {
        'camera/color/image_raw': rgb_topic,
        'thermal/image_raw': x_topic,
        'sartm/overlay': None,
        'sartm/confidence': None,
    }
    return Node(
        package='rviz2',
        executable='rviz2',
        namespace=_text(context, 'namespace'),
        arguments=['-d', str(CONFIG / 'sartm.rviz'), '-f', _text(context, 'fixed_frame')],
        # A value given here overrides that of a bringup's SetParameter.
        parameters=[{'use_sim_time': values['use_sim_time']}] if 'use_sim_time' in values else None,
        # RViz takes the transport from the topic in its configuration, raw here, so that of a
        # compressed topic it shows the raw one beside it, if there is one.
        remappings=[
            (f'/{t}', re.sub('/compressed(Depth)?$', '', name or t)) for t, name in shown.items()
        ],
        additional_env=environment,
    )


def _full_name(context: LaunchContext) -> str:
    """Return the full name of the node, below the namespace that a bringup has pushed."""
    # launch_ros keeps what PushRosNamespace pushes in this variable.
    pushed = LaunchConfiguration('ros_namespace', default='').perform(context)
    return posixpath.join('/', pushed, _text(context, 'namespace'), NODE)


def _file_values(params_file: Path, full_name: str) -> dict[str, Any]:
    """Return the values that a parameter file gives the node.

    As in rcl, the sections that match its full name apply in their order: `*` stands for one part
    of the name and `**` for any number of them.
    """
    wildcards = {'*': r'/\w+', '**': r'(/\w+)*'}
    values: dict[str, Any] = {}
    for names, section in node_sections(params_file):
        pattern = ''.join(wildcards.get(name, f'/{re.escape(name)}') for name in names)
        if re.fullmatch(pattern, full_name):
            values |= section
    return values


def _text(context: LaunchContext, name: str) -> str:
    return LaunchConfiguration(name).perform(context)


def _switch(context: LaunchContext, name: str) -> bool | None:
    """Return the value of a switch, or None if it is empty."""
    text = _text(context, name)
    if text.strip().lower() not in SWITCH_VALUES:
        raise RuntimeError(f'argument {name} is {text!r}; expected true or false')
    return SWITCH_VALUES[text.strip().lower()]
