"""Runs the installed node as a process, in a ROS domain of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sartm_model.errors import SartmError
from sartm_ros.settings.fastdds import use_image_profile, workspaces

STOP_S = 30.0
"""How long a process may take to end. A node first publishes the pair in work and then releases the
network."""

_domain_claims: list[socket.socket] = []
"""Open sockets whose names mark the domains that this process has claimed."""


def find_node() -> Path:
    """Return the installed `sartm_node`: beside this Python, on the PATH, or in a ROS workspace.

    Raises SartmError if there is none.
    """
    beside = Path(sys.executable).parent / 'sartm_node'
    candidates = [beside, Path(shutil.which('sartm_node') or beside)]
    candidates += [prefix / 'lib' / 'sartm_ros' / 'sartm_node' for prefix in workspaces()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SartmError('sartm_node is not installed; run make setup, or source the workspace')


def claim_domain() -> int:
    """Return the id of a ROS domain that no other process on this machine has claimed.

    The name of a socket marks the domain as claimed until this process ends, for all users, and
    leaves no file. Up to 101 the ports of a domain do not overlap with those that the system
    assigns to other programs.

    Raises:
        SartmError: all domains are claimed.
    """
    for offset in range(101):
        domain = 1 + (os.getpid() + offset) % 101
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f'\0sartm_ros_domain_{domain}')
        except OSError:  # the name is in use
            claim.close()
            continue
        _domain_claims.append(claim)
        return domain
    raise SartmError('the ROS domains 1 to 101 are all in use; end some of their processes')


def use_own_domain() -> None:
    """Set the ROS environment of this process and its children.

    They communicate on this machine alone, in a domain of their own.
    """
    os.environ['ROS_DOMAIN_ID'] = str(claim_domain())
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    use_image_profile()


@contextmanager
def node_process(parameters: Mapping[str, Any], log: Path) -> Iterator[subprocess.Popen]:
    """Run the node until the block ends, where it is stopped if it still runs.

    Args:
        parameters: ROS parameters by name.
        log: receives what the node prints.
    """
    command = [str(find_node()), '--ros-args']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    with child_process(command, log) as process:
        yield process


@contextmanager
def child_process(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """Run a process until the block ends, where it is stopped if it still runs.

    Its output goes to `log`. Its `stdin` accepts text and is flushed after each line.
    """
    # The start-up hook of the ROS wheels sets this variable and skips its work if it is set.
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
        stop_process(process)
        assert process.stdin is not None
        process.stdin.close()


def stop_process(process: subprocess.Popen, patience_s: float = STOP_S) -> str:
    """End a process by SIGINT, by SIGTERM if it still runs then, and at last by SIGKILL.

    Args:
        process: the process.
        patience_s: how long it may take to end after each of the first two signals.

    Returns:
        The name of the last signal that was sent, or '' if the process had ended before.
    """
    sent = ''
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        process.send_signal(number)
        sent = number.name
        try:
            process.wait(None if number == signal.SIGKILL else patience_s)
        except subprocess.TimeoutExpired:
            continue
    return sent


def tail(log: Path, lines: int = 3) -> str:
    """Return the last lines of a log, joined into one line."""
    text = log.read_text(errors='replace').strip().splitlines()
    return f'{" / ".join(text[-lines:]) or "it printed nothing"} (see {log})'
