"""The installed node as a process of its own, in a ROS domain of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sartm_model.errors import SartmError


def find_node() -> Path:
    """The installed `sartm_node`: beside this Python, on the PATH, or in a ROS workspace.

    Raises SartmError where there is none.
    """
    beside = Path(sys.executable).parent / 'sartm_node'
    workspaces = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    candidates = [beside, Path(shutil.which('sartm_node') or beside)]
    candidates += [Path(w) / 'lib' / 'sartm_ros' / 'sartm_node' for w in workspaces if w]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SartmError('sartm_node is not installed; run make setup, or source the workspace')


def find_config(name: str) -> Path:
    """A file of `config/`: in the checkout, or where the package is installed."""
    places = [Path(__file__).resolve().parents[2], Path(sys.prefix) / 'share' / 'sartm_ros']
    workspaces = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    places += [Path(w) / 'share' / 'sartm_ros' for w in workspaces if w]
    for place in places:
        if (place / 'config' / name).is_file():
            return place / 'config' / name
    raise SartmError(f'config/{name} is not installed; run make setup, or source the workspace')


def enter_own_domain() -> None:
    """Let this process and its children talk on this machine, in a domain hardly shared."""
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(find_config('fastdds_images.xml'))


@contextmanager
def node_process(arguments: dict[str, Any], log: Path) -> Iterator[subprocess.Popen]:
    """The node running in a process of its own, which is killed at the end if it still runs.

    Args:
        arguments: ROS parameters by name.
        log: receives what the node prints.
    """
    command = [str(find_node()), '--ros-args']
    for name, value in arguments.items():
        command += ['-p', f'{name}:={value}']
    with child_process(command, log) as process:
        yield process


@contextmanager
def child_process(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that is killed at the end if it still runs; its output goes to `log`.

    Text may be written to its `stdin`, by lines.
    """
    # The wheels' start-up code would take the child for one that it has prepared already.
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            text=True,
            bufsize=1,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def tail(log: Path, lines: int = 3) -> str:
    """The last lines of a log, as one."""
    text = log.read_text(errors='replace').strip().splitlines()
    return f'{" / ".join(text[-lines:]) or "it printed nothing"} (see {log})'
