"""The policy names what the node has, and the node listens on no TCP port."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import ROOT

POLICY = ROOT / 'config' / 'sros2_policy.xml'
SOMETIMES = {
    '/clock',
    '/sartm/label_info',
    '/sartm/get_type_description',
}
"""Of use_sim_time, of vision_msgs, of Jazzy and later."""

LISTENING = '0A'  # the state in /proc/net/tcp


def allowed(kind: str, right: str) -> set[str]:
    """Full names of the topics or services that the policy gives a right to."""
    (profile,) = ElementTree.parse(POLICY).iter('profile')
    assert (profile.get('node'), profile.get('ns')) == ('sartm', '/')
    names = [
        item.text or ''
        for group in profile.findall(f'{kind}s')
        if group.get(right) == 'ALLOW'
        for item in group.findall(kind)
    ]
    assert len(names) == len(set(names))
    return {name.replace('~', '/sartm', 1) for name in names}


@pytest.mark.parametrize(
    ('kind', 'right', 'endpoint'),
    [
        ('topic', 'subscribe', 'subscriber'),
        ('topic', 'publish', 'publisher'),
        ('service', 'reply', 'service'),
        ('service', 'request', 'client'),
    ],
)
def test_the_policy_is_exactly_what_the_node_has(quick_peer, kind, right, endpoint):
    list_names = getattr(quick_peer.node, f'get_{endpoint}_names_and_types_by_node')
    found = {name for name, _ in list_names('sartm', '/')}
    granted = allowed(kind, right)
    assert found - granted == set(), f'add to {POLICY.name}: {kind}s {right}'
    assert granted - found <= SOMETIMES, f'the node has no such {kind}: take it from {POLICY.name}'


def test_the_node_listens_on_no_tcp_port(quick_node, quick_peer):
    """DDS goes over UDP and shared memory; nothing of the node's own waits for connections."""
    inodes = set()
    for link in Path(f'/proc/{quick_node.pid}/fd').iterdir():
        target = os.readlink(link)
        if target.startswith('socket:['):
            inodes.add(target[8:-1])
    assert inodes  # those of DDS
    listening = set()
    for table in ('tcp', 'tcp6'):
        path = Path(f'/proc/{quick_node.pid}/net/{table}')
        rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
        listening |= {row[9] for row in rows if row[3] == LISTENING}
    assert not inodes & listening
