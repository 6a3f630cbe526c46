"""The soak, for twelve seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from benchmarks.soak import growth_mib

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak():
    command = [sys.executable, '-m', 'benchmarks.soak', '--minutes', '0.2', '--rate', '30']
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
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
