"""Nodes that run for a whole session of tests, and a `Peer` of each, in ROS domains of their own.

A test that needs its own parameters, its own process or the end of one starts a node itself, with
`ros_helpers.running_node`, and talks to it with the fixture `peer`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from processes import Process, running_node, segments_left, wait_until

from sartm_ros.settings.parameters import FIELDS, Parameters, to_dict

if TYPE_CHECKING:  # these need ROS; the tests that use the fixtures skip without it
    from faults import Exchange
    from ros_helpers import Peer


RUN_TIME_DEFAULTS = {
    name: value
    for name, value in to_dict(Parameters()).items()
    if FIELDS[name].metadata['run_time']
}


@pytest.fixture(scope='session', autouse=True)
def no_shared_memory_left():
    """Check that no child process of the tests has left files in shared memory."""
    yield
    wait_until(lambda: not segments_left(), 'the removal of shared memory segments', 5)


@pytest.fixture(scope='session')
def checkpoint(nano_checkpoint):
    """The checkpoint of the nodes."""
    return nano_checkpoint


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer in the domain of this process, for a node that the test starts."""
    from ros_helpers import Peer

    peer = Peer()
    yield peer
    peer.close()


@contextmanager
def _shared_node(folder, parameters, script=None, reliable=False) -> Iterator[tuple[Process, Peer]]:
    from ros_helpers import Peer

    from sartm_ros.demo.node_process import claim_domain

    domain = claim_domain()
    with running_node(folder, parameters, script, domain=domain) as node:
        node.wait_for_output('active')
        peer = Peer(domain, reliable)
        try:
            yield node, peer
            assert node.stop(signal.SIGINT) == 0
        finally:
            peer.close()


@contextmanager
def _connected(node: Process, peer: Peer) -> Iterator[Peer]:
    """Connect the peer for one test, and undo the changes of parameters and subscriptions.

    Output, messages and counts of earlier tests do not appear in the test.
    """
    node.forget_output()
    peer.connect()
    yield peer
    peer.unsubscribe()
    results = peer.set_parameters(**RUN_TIME_DEFAULTS)
    assert all(done for done, _ in results), results


@pytest.fixture(scope='session')
def _quick(tmp_path_factory, checkpoint):
    with _shared_node(
        tmp_path_factory.mktemp('quick'), {'checkpoint': checkpoint}, 'quick_network_node.py'
    ) as shared:
        yield shared


@pytest.fixture(scope='session')
def _faulty(tmp_path_factory, checkpoint):
    """Images are sent and received reliably, so that every count is exact on a busy machine too."""
    parameters: dict[str, Any] = {'checkpoint': checkpoint}
    for topic in ('/camera/color/image_raw', '/thermal/image_raw'):
        parameters[f'qos_overrides.{topic}.subscription.reliability'] = 'reliable'
    folder = tmp_path_factory.mktemp('faulty')
    with _shared_node(folder, parameters, 'faulty_network_node.py', reliable=True) as shared:
        yield shared


@pytest.fixture(scope='session')
def _real(tmp_path_factory, checkpoint):
    parameters = {'checkpoint': checkpoint, 'device': 'cpu'}
    with _shared_node(tmp_path_factory.mktemp('real'), parameters) as shared:
        yield shared


@pytest.fixture
def quick_node(_quick) -> Process:
    """The process of the node with an instant network."""
    return _quick[0]


@pytest.fixture
def quick_peer(_quick) -> Iterator[Peer]:
    """The peer of `quick_node`, connected."""
    with _connected(*_quick) as peer:
        yield peer


@pytest.fixture
def faulty_node(_faulty) -> Process:
    """The process of the node whose network fails on request."""
    return _faulty[0]


@pytest.fixture
def exchange(_faulty) -> Iterator[Exchange]:
    """An exchange of pairs with `faulty_node`, connected."""
    from faults import Exchange

    with _connected(*_faulty) as peer:
        yield Exchange(peer)


@pytest.fixture
def real_node(_real) -> Process:
    """The process of the node as shipped, with an untrained nano network."""
    return _real[0]


@pytest.fixture
def real_peer(_real) -> Iterator[Peer]:
    """The peer of `real_node`, connected."""
    with _connected(*_real) as peer:
        yield peer
