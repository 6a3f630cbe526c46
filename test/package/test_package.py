"""The ROS package: its manifest, and `colcon build` with the executable that comes out of it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]


def setup_arguments() -> dict[str, ast.expr]:
    tree = ast.parse((ROOT / 'setup.py').read_text())
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'
    )
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def test_manifest_is_a_valid_ament_python_package():
    from catkin_pkg.package import parse_package

    warnings: list[str] = []
    package = parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    assert warnings == []
    assert package.package_format == 3
    assert package.get_build_type() == 'ament_python'
    assert package.licenses == ['Apache-2.0']
    depends = {dependency.name for dependency in package.exec_depends}
    assert {'rclpy', 'message_filters', 'cv_bridge', 'sensor_msgs', 'launch_ros'} <= depends
    arguments = setup_arguments()
    assert ast.literal_eval(arguments['version']) == package.version


def test_every_ros_import_is_declared():
    """A package that is imported and not declared is missing on the next machine."""
    declared = {
        element.text
        for element in ElementTree.parse(ROOT / 'package.xml').getroot()
        if element.tag.endswith('depend')
    }
    imported = set()
    for path in [*(ROOT / 'sartm_ros').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]:
        for name in re.findall(r'^\s*(?:from|import) (\w+)', path.read_text(), re.MULTILINE):
            imported.add(name)
    ros = {
        n
        for n in imported
        if n.endswith(('_msgs', '_srvs')) or n in ('rclpy', 'launch', 'launch_ros')
    }
    assert ros
    assert ros <= declared


def test_the_network_never_imports_ros():
    for path in (ROOT / 'sartm_model').rglob('*.py'):
        text = path.read_text()
        assert not re.search(r'^\s*(from|import) (rclpy|\w+_msgs|cv_bridge)', text, re.MULTILINE), (
            f'{path} imports ROS'
        )


@pytest.mark.skipif(
    not (Path(sys.executable).parent / 'colcon').exists() and not shutil.which('colcon'),
    reason='colcon is not installed; make setup installs it',
)
def test_colcon_builds_a_node_that_runs(tmp_path):
    """Build the sources as git has them; the executable must start and refuse nonsense with 2."""
    workspace = tmp_path / 'ws'
    source = workspace / 'src' / 'sartm_ros'
    ignore = shutil.ignore_patterns('.*', '__pycache__', 'build', 'install', 'log', '*.egg-info')
    shutil.copytree(ROOT, source, ignore=ignore)
    beside = Path(sys.executable).parent / 'colcon'
    colcon = str(beside) if beside.exists() else str(shutil.which('colcon'))
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    environment['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{environment["PATH"]}'
    environment.pop('PYTHONPATH', None)
    built = subprocess.run(
        [colcon, '--log-base', str(workspace / 'log'), 'build'],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = workspace / 'install' / 'sartm_ros'
    share = prefix / 'share'
    assert (share / 'ament_index' / 'resource_index' / 'packages' / 'sartm_ros').is_file()
    for name in (
        'package.xml',
        'launch/sartm.launch.py',
        'config/sartm.yaml',
        'config/sartm.rviz',
        'config/fastdds_images.xml',
    ):
        assert (share / 'sartm_ros' / name).is_file(), name
    site = next(prefix.rglob('site-packages'))
    assert (site / 'sartm_model' / 'checkpoints' / 'demo.safetensors').is_file()
    for templates in ('sartm_model/evaluation/report/templates', 'sartm_ros/bag/templates'):
        assert list((site / templates).glob('*.html.j2')), templates
    node = prefix / 'lib' / 'sartm_ros' / 'sartm_node'
    environment['PYTHONPATH'] = str(site)
    done = subprocess.run(
        [node, '--ros-args', '-p', 'checkpoint:=/nowhere.safetensors'],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'no checkpoint /nowhere.safetensors' in done.stdout + done.stderr
