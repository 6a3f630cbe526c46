"""Child processes of the tests, the ROS domain of each, and what they leave in shared memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]

TIMEOUT_S = 60.0
"""How long to wait for a condition that comes true within seconds on an idle machine."""


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait until `condition()` is true and return its value; fail with `what` was waited for."""
    end_s = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end_s, f'waited {timeout_s:.0f} s in vain for {what}'
        time.sleep(0.005)


def child_environment() -> dict[str, str]:
    """Return the environment for a Python process that imports this checkout and uses ROS."""
    environment = dict(os.environ)
    # The start-up hook of the ROS wheels marks the environment of the process that it prepared, and
    # would not prepare a child process with that mark.
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    environment.pop('OMP_WAIT_POLICY', None)
    environment['PYTHONPATH'] = os.pathsep.join(
        [str(ROOT), *filter(None, [environment.get('PYTHONPATH')])]
    )
    environment['PYTHONUNBUFFERED'] = '1'
    return environment


class Process:
    """A child process whose output goes to a file.

    Args:
        command: the command line.
        log: receives the output.
        domain: the ROS domain; by default that of this process.
    """

    def __init__(self, command: Sequence[str], log: Path, domain: int | None = None) -> None:
        environment = child_environment()
        if domain is not None:
            environment['ROS_DOMAIN_ID'] = str(domain)
        self._log = log
        self._output_start = 0
        with log.open('wb') as file:
            self._child = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )

    @property
    def resident_mib(self) -> float:
        """The resident memory of the process."""
        return psutil.Process(self.pid).memory_info().rss / 2**20

    @property
    def output(self) -> str:
        """What the process has written since its start or the last `forget_output`."""
        return self._log.read_bytes()[self._output_start :].decode(errors='replace')

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._child.poll() is not None

    def forget_output(self) -> None:
        """Let `output` begin here."""
        self._output_start = self._log.stat().st_size

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        segments = segments_of(self.pid)
        _used.update(segments)
        if number == signal.SIGKILL:
            _orphaned.update(segments)
        self._child.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status."""
        return self._child.wait(TIMEOUT_S)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end of the process and return its exit status."""
        self.send_signal(number)
        return self.wait()

    def wait_for_output(self, text: str) -> None:
        """Wait until the process has written `text`; fail at once if it ends before."""

        def written() -> bool:
            ended = self._child.poll() is not None
            if text in self.output:
                return True
            assert not ended, f'ended before it wrote {text!r}:\n{self.output}'
            return False

        wait_until(written, f'{text!r} in the output')

    def end(self) -> None:
        """Kill the process if it still runs."""
        if self._child.poll() is None:
            self.send_signal(signal.SIGKILL)
            self._child.wait()
        remove_orphaned_segments()


@contextmanager
def running_node(
    folder: Path,
    parameters: Mapping[str, Any],
    script: str | None = None,
    namespace: str = '/',
    domain: int | None = None,
) -> Iterator[Process]:
    """Run the node as a process of its own.

    Args:
        folder: for its log.
        parameters: by ROS name.
        script: a script in `test/` that starts a modified node.
        namespace: of the node.
        domain: the ROS domain; by default that of this process.
    """
    program = [str(ROOT / 'test' / script)] if script else ['-m', 'sartm_ros.node.main']
    settings = [f'{name}:={value}' for name, value in parameters.items()]
    words = [word for setting in settings for word in ('-p', setting)]
    words += ['-r', f'__ns:={namespace}']
    command = [sys.executable, *program, '--ros-args', *words]
    process = Process(command, folder / 'node.log', domain)
    try:
        yield process
    finally:
        process.end()


# Shared memory of Fast DDS ------------------------------------------------------------------------

_SEGMENT = re.compile(r'/dev/shm/(?:sem\.)?fastrtps_\w+')

_used: set[Path] = set()
"""Files that child processes used when a signal was sent to them."""

_orphaned: set[Path] = set()
"""Files of killed processes that have not been removed yet."""


def segments_of(pid: int) -> set[Path]:
    """Return the files of Fast DDS in /dev/shm that a process maps or has open."""
    folder = Path(f'/proc/{pid}')
    found: set[Path] = set()
    try:
        found |= set(map(Path, _SEGMENT.findall((folder / 'maps').read_text())))
        for link in (folder / 'fd').iterdir():
            try:
                target = os.readlink(link)
            except OSError:  # closed in the meantime
                continue
            if _SEGMENT.match(target):
                found.add(Path(target))
    except OSError:  # the process has ended, or belongs to another user
        pass
    # A process has these open only for moments; they belong to the segment.
    companions = {path.with_name(f'{path.name}_el') for path in found}
    companions |= {path.with_name(f'sem.{path.name}_mutex') for path in found}
    return found | {path for path in companions if path.exists()}


def segments_in_use() -> set[Path]:
    """Return the files of Fast DDS in /dev/shm that any process uses."""
    return {path for pid in psutil.pids() for path in segments_of(pid)}


def segments_left() -> set[Path]:
    """Return the segments of child processes that still exist, though no process uses them.

    Ports are not included, because all processes of a domain share them.
    """
    segments = {path for path in _used if re.match(r'fastrtps_[0-9a-f]{16}', path.name)}
    return {path for path in segments if path.exists()} - segments_in_use()


def remove_orphaned_segments() -> None:
    """Remove the segments of processes that the tests killed, unless another process uses them."""
    if _orphaned:
        for path in _orphaned - segments_in_use():
            path.unlink(missing_ok=True)
            _orphaned.discard(path)
