"""The soak, for twelve seconds, and its measure of growth."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import ROOT, child_environment

from benchmarks.soak import growth_mib


@pytest.mark.slow
def test_a_short_soak():
    command = [sys.executable, '-m', 'benchmarks.soak', '--minutes', '0.2', '--rate', '30']
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary['pairs_out'] > 0
    assert summary['pairs_in'] == summary['pairs_out'] + sum(
        count
        for name, count in summary['dropped'].items()
        if not name.startswith(('rgb_', 'thermal_'))
    )


def test_growth_is_that_of_the_line_after_the_first_quarter():
    assert growth_mib([0, 50, 90, *range(100, 109)]) == pytest.approx(8)
    noise = np.random.default_rng(0).normal(200, 1, 1200)
    assert abs(growth_mib(list(noise))) < 1
    assert growth_mib([1.0]) == 0


def test_memory_counts_allocations_and_not_shared_memory():
    """In a process of its own: one that has freed memory would use that first.

    The node's images in shared memory belong to the middleware.
    """
    code = """
import mmap, os
import numpy as np
from benchmarks.soak import memory_mib

before = memory_mib(os.getpid())
allocated = np.ones(2**23)  # 64 MiB
print(memory_mib(os.getpid()) - before)
shared = mmap.mmap(-1, 2**26)
shared.write(bytes(2**26))
print(memory_mib(os.getpid()) - before)
"""
    done = subprocess.run(
        [sys.executable, '-c', code], env=child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == pytest.approx([64, 64], abs=8)
