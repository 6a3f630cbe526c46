"""Processes of the demo: each has a ROS domain of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from processes import child_environment

from sartm_ros.demo.node_process import claim_domain

CLAIM_UNTIL_STDIN_ENDS = """
import os, sys
from sartm_ros.demo.node_process import claim_domain
os.getpid = lambda: 7
print(claim_domain(), flush=True)
sys.stdin.read()
"""


def test_a_domain_is_claimed_until_its_process_ends_and_no_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(os, 'getpid', lambda: 7)  # both begin at the same domain
    other = subprocess.Popen(
        [sys.executable, '-c', CLAIM_UNTIL_STDIN_ENDS],
        env=child_environment() | {'TMPDIR': str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        claimed = int(other.stdout.readline())
        ours = claim_domain()
        other.stdin.close()
    assert 1 <= claimed <= 101
    assert 1 <= ours <= 101
    assert ours != claimed
    assert claim_domain() == claimed  # free since its process ended
    assert list(tmp_path.iterdir()) == []
