"""The benchmark of the ROS path: its counts, and that the newest pair is the one served."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import ros_helpers  # noqa: F401  sets this process's ROS domain
from processes import ROOT, child_environment
from untrained_checkpoint import save_untrained

from benchmarks.ros_path import NODES, run_round, table
from benchmarks.ros_path_figures import Round, overload, served, summary, waiting_newer
from benchmarks.ros_path_nodes import Record, Settings

MS = 1_000_000
ACCOUNTS = ('received', 'lost_inbound', 'unserved', 'lost_outbound')


def record(arrived: dict[int, int], published: dict[int, int]) -> Record:
    return Record(arrived, {stamp: at + 1 for stamp, at in arrived.items()}, published)


@pytest.mark.slow
def test_a_run_gives_every_figure_and_accounts_for_every_pair(tmp_path):
    command = [sys.executable, '-m', 'benchmarks.ros_path', '--pairs', '20']
    command += ['--sizes', '64x48', '--json', str(tmp_path / 'figures.json')]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / 'figures.json').read_text())
    lines = done.stdout.splitlines()
    rows = [line.split('|')[1:3] for line in lines if line.startswith('|')][2:]
    assert [[cell.strip() for cell in row] for row in rows] == [
        *([images, node] for images in ('64x48', 'overload') for node in NODES)
    ]
    for nodes in (result['sizes']['64x48'], result['overload']):
        assert tuple(nodes) == NODES
        for figures in nodes.values():
            assert figures['pairs'] == 20
            assert sum(figures[name] for name in ACCOUNTS) == 20
            assert figures['received'] > 0
            assert figures['repeated'] == figures['lost_outbound'] == 0
            assert set(figures['added_ms']) == {'median', 'p99', 'max'}
            # How long they are depends on the load of the machine. Two threads take the times of
            # one pair, so a reading may even come out below zero.
            assert set(figures['end_to_end_ms']) == {'median', 'p99', 'max'}
            assert figures['cpu_percent'] >= 0
    assert result['overload']['sartm']['unserved'] > 0
    assert result['overload']['sartm']['not_newest'] == 0


@pytest.mark.slow
def test_a_checkpoint_is_measured_in_the_node_alone(tmp_path):
    checkpoint = save_untrained(tmp_path / 'nano.safetensors')
    command = [sys.executable, '-m', 'benchmarks.ros_path', '--pairs', '10', '--rate', '2']
    command += ['--sizes', '64x64', '--checkpoint', str(checkpoint)]
    command += ['--json', str(tmp_path / 'figures.json')]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / 'figures.json').read_text())
    assert result['overload'] == {}
    [(node, figures)] = result['sizes']['64x64'].items()
    assert node == 'sartm'
    assert figures['pairs'] == 10
    assert figures['received'] > 0


def test_under_overload_the_newest_pair_is_served(tmp_path):
    settings = Settings('', 64, 48, rate_hz=50.0, pairs=60, network_s=0.15)
    one = run_round('sartm', settings, tmp_path)
    order = served(one)
    assert order == sorted(order), 'an older pair came out after a newer one'
    assert 2 <= len(order) < 60
    assert order[-1] == max(set(one.sent) & set(one.record.arrived)), 'the last pair comes out'
    for before, stamp in pairwise(order):
        assert not waiting_newer(one, stamp, one.record.published[before])
    assert set(one.received) & set(one.sent) == set(order)
    assert one.repeated == 0


def test_a_pair_is_counted_where_it_was_lost():
    sent = [10 * MS, 20 * MS, 30 * MS, 40 * MS]
    arrived = {10 * MS: 12 * MS, 20 * MS: 22 * MS, 30 * MS: 32 * MS}
    published = {10 * MS: 13 * MS, 20 * MS: 25 * MS}
    figures = summary([Round(sent, {10 * MS: 17 * MS}, record(arrived, published), 0.25)])
    assert {name: figures[name] for name in ACCOUNTS} == dict.fromkeys(ACCOUNTS, 1)
    assert figures['pairs'] == 4
    assert figures['added_ms'] == {'median': 2.0, 'p99': 2.98, 'max': 3.0}
    assert figures['end_to_end_ms']['max'] == 7.0
    assert figures['cpu_percent'] == 25.0


def test_an_old_pair_that_is_served_is_noticed():
    sent = [0, 10 * MS, 20 * MS, 30 * MS]
    arrived = {stamp: stamp + MS for stamp in sent}
    settings = Settings('', rate_hz=100.0, network_s=0.025)
    # Free at 26 ms: the pair of 20 ms had come by then, and the older one is served nevertheless.
    old = Round(sent, {}, record(arrived, {0: 26 * MS, 10 * MS: 51 * MS}), 0.0)
    assert overload([old], settings)['not_newest'] == 1
    assert overload([old], settings)['passed_over_max'] == 1
    new = Round(sent, {}, record(arrived, {0: 26 * MS, 20 * MS: 51 * MS}), 0.0)
    assert overload([new], settings)['not_newest'] == 0
    # One inference, one interval and the slack are 55 ms.
    assert overload([new], settings)['within']
    late = Round(sent, {}, record(arrived, {0: 57 * MS}), 0.0)
    assert not overload([late], settings)['within']


def test_the_table_shows_what_came_out_of_nothing():
    nothing = Round([0], {}, record({}, {}), 0.0)
    figures = {**summary([nothing]), **overload([nothing], Settings(''))}
    text = list(table({'sizes': {}, 'overload': {'plain': figures}}))
    assert text[2] == '| overload | plain | - | - | 1 | 1 | 0.0 % |'
    assert not figures['within']
