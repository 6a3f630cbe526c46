"""Starts the node `sartm`, and RViz on request.

An empty argument keeps the value of the parameter file.
"""

from __future__ import annotations

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

SHARE = get_package_share_directory('sartm_ros')
PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
TEXTS = ('checkpoint', 'device', 'precision', 'rgb_topic', 'thermal_topic')
SWITCHES = ('autostart', 'use_sim_time')

ARGUMENTS = [
    DeclareLaunchArgument(
        'params_file',
        default_value=os.path.join(SHARE, 'config', 'sartm.yaml'),
        description='YAML file with the parameters.',
    ),
    DeclareLaunchArgument(
        'checkpoint',
        default_value='',
        description="Path of a .safetensors or .onnx file, or 'demo'.",
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
        'namespace', default_value='', description='Namespace of the node and its outputs.'
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='',
        choices=['', 'true', 'false'],
        description='Use the time of /clock, for a bag or a simulation.',
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='',
        choices=['', 'true', 'false'],
        description='Configure and activate the node at the start.',
    ),
    DeclareLaunchArgument(
        'log_level',
        default_value='info',
        choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='Lowest level that the node logs.',
    ),
    DeclareLaunchArgument(
        'rviz',
        default_value='false',
        choices=['true', 'false'],
        description='Show images and overlay in RViz.',
    ),
    DeclareLaunchArgument(
        'fastdds_profile',
        default_value='true',
        choices=['true', 'false'],
        description='Give Fast DDS enough shared memory for images, in the processes started here; '
        f'a {PROFILE_VARIABLE} that is already set is kept. The camera drivers need the same '
        'setting.',
    ),
]


def node_of(context: LaunchContext) -> list[LifecycleNode]:
    """Return the node with the parameters that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in TEXTS + SWITCHES}
    overrides = {
        name: value == 'true' if name in SWITCHES else value
        for name, value in given.items()
        if value
    }
    node = LifecycleNode(
        package='sartm_ros',
        executable='sartm_node',
        name='sartm',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), overrides],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        output='screen',
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` runs."""
    profile = SetEnvironmentVariable(
        PROFILE_VARIABLE,
        EnvironmentVariable(
            PROFILE_VARIABLE,
            default_value=os.path.join(SHARE, 'config', 'fastdds_images.xml'),
        ),
        condition=IfCondition(LaunchConfiguration('fastdds_profile')),
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', os.path.join(SHARE, 'config', 'sartm.rviz')],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*ARGUMENTS, profile, OpaqueFunction(function=node_of), rviz])
