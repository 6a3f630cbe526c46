"""The node's process: its usage text, the environment that it gives torch, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import ROOT, child_environment

from sartm_ros.demo.node_process import claim_domain
from sartm_ros.settings import fastdds
from sartm_ros.settings.fastdds import PROFILE_VARIABLE

STOP_AT_THE_NODE = """
import os, sys
from sartm_model.errors import SartmError
from sartm_ros.node.main import main

def make_node():
    assert 'torch' not in sys.modules
    raise SartmError(f"OMP_WAIT_POLICY is {os.environ['OMP_WAIT_POLICY']}")

sys.exit(main([], make_node))
"""


def run_python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = child_environment() | environment
    return subprocess.run(
        [sys.executable, *words], env=given, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize('words', [['--help'], ['-h'], ['--help', '--ros-args', '-p', 'a:=1']])
def test_help_explains_the_command_and_starts_no_node(words):
    done = run_python('-m', 'sartm_ros.node.main', *words)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith('usage: sartm_node')
    assert '--ros-args --params-file sartm.yaml' in done.stdout
    assert 'config/sartm.yaml lists every parameter' in done.stdout


def test_the_version_is_that_of_the_package():
    done = run_python('-m', 'sartm_ros.node.main', '--version')
    assert (done.returncode, done.stderr) == (0, '')
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert done.stdout == f'sartm_node {root.findtext("version")}\n'


@pytest.mark.parametrize('words', [['--params-file', '/nowhere.yaml'], ['-p', 'device']])
def test_ros_arguments_that_cannot_be_used_end_the_command(words):
    done = run_python('-m', 'sartm_ros.node.main', '--ros-args', *words)
    assert done.returncode == 2
    assert 'sartm_node: ROS does not start: RCLError' in done.stderr
    assert ' '.join(words) in done.stderr


@pytest.mark.parametrize(('given', 'expected'), [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_threads_of_torch_wait_passively_unless_the_user_says_otherwise(given, expected):
    """The variable is set before torch is imported, which reads it then."""
    environment = {} if given is None else {'OMP_WAIT_POLICY': given}
    done = run_python('-c', STOP_AT_THE_NODE, **environment)
    assert done.returncode == 2
    assert done.stderr == f'sartm_node: OMP_WAIT_POLICY is {expected}\n'


LOOK_FOR_DDS_AFTER_MAIN = """
import os, signal, sys, threading, time
from processes import segments_of
from sartm_ros.node.main import main

def stop():
    while not segments_of(os.getpid()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if 'autostart:=false' in sys.argv:
    threading.Thread(target=stop, daemon=True).start()
status = main(['--ros-args', *sys.argv[1:]])
print(status, segments_of(os.getpid()))
"""


@pytest.mark.parametrize(
    ('parameter', 'status'), [('autostart:=false', 0), ('checkpoint:=/nowhere.safetensors', 2)]
)
def test_dds_ends_with_the_node_and_not_with_python(parameter, status):
    """Its threads must not outlast the objects that they call."""
    environment = {
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'test')]),
        'ROS_DOMAIN_ID': str(claim_domain()),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    done = run_python('-c', LOOK_FOR_DDS_AFTER_MAIN, '-p', parameter, **environment)
    assert done.returncode == 0
    assert done.stdout == f'{status} set()\n'


UNUSUAL_START = """
import os, signal, sys
from sartm_ros.node.lifecycle_node import SartmNode
from sartm_ros.node.main import main

class Ending(SartmNode):
    def autostart(self):
        if '--signal' in sys.argv:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                self.get_clock()  # Python runs the handler at the latest here
            except BaseException:
                return 1  # as a library that takes every exception for a failure of its own
        raise SystemExit(3)

sys.exit(main([], Ending))
"""


@pytest.mark.parametrize(('words', 'status'), [([], 3), (['--signal'], 0)])
def test_whatever_ends_the_start_ends_the_process(words, status):
    """The executor's thread must not outlast it. After a signal the status is 0."""
    environment = {
        'ROS_DOMAIN_ID': str(claim_domain()),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    assert run_python('-c', UNUSUAL_START, *words, **environment).returncode == status


SIGNAL_AFTER_A_FATAL_ERROR = """
import os, signal, sys
from sartm_ros.node.lifecycle_node import SartmNode
from sartm_ros.node.main import main

class Failing(SartmNode):
    def __init__(self):
        super().__init__()
        self.fatal_error = 'inference fails again and again'

    def close(self):
        os.kill(os.getpid(), signal.SIGINT)  # as if the user pressed Ctrl-C meanwhile
        super().close()

sys.exit(main(['--ros-args', '-p', 'autostart:=false'], Failing))
"""


def test_a_signal_does_not_interrupt_the_end_after_a_fatal_error():
    environment = {
        'ROS_DOMAIN_ID': str(claim_domain()),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    assert run_python('-c', SIGNAL_AFTER_A_FATAL_ERROR, **environment).returncode == 1


TELL_THE_PROFILE = """
import os, sys
from sartm_model.errors import SartmError
from sartm_ros.node.main import main

def make_node():
    raise SartmError(f"profile {os.environ.get('FASTRTPS_DEFAULT_PROFILES_FILE')}")

sys.exit(main([], make_node))
"""


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, str(ROOT / 'config' / 'fastdds_images.xml')),
        ({PROFILE_VARIABLE: '/own.xml'}, '/own.xml'),
        ({PROFILE_VARIABLE: ''}, ''),
        ({'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}, 'None'),
    ],
)
def test_the_image_profile_is_used_unless_the_user_has_chosen(monkeypatch, given, expected):
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    done = run_python('-c', TELL_THE_PROFILE, **given)
    assert done.stderr.splitlines()[-1] == f'sartm_node: profile {expected}'


def test_importing_the_package_sets_nothing_in_the_environment():
    code = 'import os; before = dict(os.environ); import sartm_model; print(before == os.environ)'
    assert run_python('-c', code).stdout == 'True\n'


def test_the_files_of_a_checkout_near_the_root_are_found(monkeypatch, tmp_path):
    """Such as /sartm_ros in a container, which has fewer folders above it than an installation."""
    monkeypatch.setattr(fastdds, '__file__', '/sartm_ros/sartm_ros/settings/fastdds.py')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    installed = tmp_path / 'share' / 'sartm_ros' / 'config' / 'fastdds_images.xml'
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert fastdds.find_config('fastdds_images.xml') == installed
