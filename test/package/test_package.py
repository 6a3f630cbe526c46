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
from processes import child_environment

ROOT = Path(__file__).resolve().parents[2]
IGNORED_FOLDERS = ('build', 'install', 'log', 'demo_output', 'gpu_report', 'runs', 'weights')


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
    optional = {'message_filters', 'cv_bridge', 'vision_msgs'}
    assert {'rclpy', 'sensor_msgs', 'launch_ros'} | optional <= depends
    assert not depends & {'rviz2', 'python3-matplotlib'}  # a robot may have no screen
    tests = {dependency.name for dependency in package.test_depends}
    assert {'python3-pytest', 'python3-hypothesis'} <= tests
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


def test_the_pytest_plugins_of_ros_are_not_loaded(tmp_path):
    """In a sourced ROS 2 they would be: pytest 9 does not start with launch_testing's."""
    for name in ('launch_testing', 'launch_ros', 'launch_pytest'):
        (tmp_path / f'{name}_plugin.py').write_text('raise RuntimeError("this plugin is loaded")')
        info = tmp_path / f'{name}_stand_in-1.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}-stand-in\nVersion: 1.0\n'
        )
        (info / 'entry_points.txt').write_text(f'[pytest11]\n{name} = {name}_plugin\n')
    environment = child_environment() | {'PYTHONPATH': str(tmp_path)}
    command = [sys.executable, '-m', 'pytest', '--collect-only', Path(__file__).name]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site-packages of a colcon workspace in which the package was built."""
    beside = Path(sys.executable).parent / 'colcon'
    colcon = str(beside) if beside.exists() else shutil.which('colcon')
    if colcon is None:
        pytest.skip('colcon is not installed; make setup installs it')
    workspace = tmp_path_factory.mktemp('workspace')
    ignore = shutil.ignore_patterns('.*', '__pycache__', '*.egg-info', *IGNORED_FOLDERS)
    shutil.copytree(ROOT, workspace / 'src' / 'sartm_ros', ignore=ignore)
    environment = clean_environment()
    environment['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{environment["PATH"]}'
    built = subprocess.run(
        [colcon, '--log-base', str(workspace / 'log'), 'build'],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return next((workspace / 'install' / 'sartm_ros').rglob('site-packages'))


def prefix_of(site: Path) -> Path:
    return next(folder for folder in site.parents if (folder / 'share').is_dir())


def clean_environment() -> dict[str, str]:
    """The environment of a user who has sourced nothing."""
    environment = child_environment()
    del environment['PYTHONPATH']
    return environment


def run_installed(site: Path, *command: object) -> subprocess.CompletedProcess:
    """Run a command with the installed package, from a folder without the sources."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=site,
        env=clean_environment() | {'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_colcon_installs_every_file_that_is_needed(site):
    share = prefix_of(site) / 'share'
    assert (share / 'ament_index' / 'resource_index' / 'packages' / 'sartm_ros').is_file()
    shared = [Path('package.xml')]
    shared += [path.relative_to(ROOT) for path in (ROOT / 'launch').glob('*.launch.py')]
    shared += [path.relative_to(ROOT) for path in (ROOT / 'config').rglob('*') if path.is_file()]
    assert [file for file in shared if not (share / 'sartm_ros' / file).is_file()] == []
    assert (site / 'sartm_model' / 'checkpoints' / 'demo.safetensors').is_file()
    for package in ('sartm_model', 'sartm_ros'):
        templates = [path.relative_to(ROOT) for path in (ROOT / package).rglob('templates/*')]
        assert templates
        assert [file for file in templates if not (site / file).is_file()] == []


@pytest.mark.slow
def test_colcon_installs_no_benchmarks_tools_or_tests(site):
    packages = {path.name for path in site.iterdir() if path.suffix != '.egg-info'}
    assert packages - {'__pycache__'} == {'sartm_model', 'sartm_ros'}


@pytest.mark.slow
def test_the_installed_command_has_the_verbs_of_bags(site):
    done = run_installed(site, sys.executable, '-m', 'sartm_model.cli', 'replay', '--help')
    assert done.returncode == 0, done.stderr
    assert 'usage: sartm replay' in done.stdout


@pytest.mark.slow
def test_the_installed_node_runs_and_refuses_a_missing_checkpoint(site):
    node = prefix_of(site) / 'lib' / 'sartm_ros' / 'sartm_node'
    done = run_installed(site, node, '--ros-args', '-p', 'checkpoint:=/nowhere.safetensors')
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'no checkpoint /nowhere.safetensors' in done.stdout + done.stderr
