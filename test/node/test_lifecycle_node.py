"""The lifecycle node in the process of the tests, with a network that is only named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticArray
from processes import wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from sartm_model.labels import LabelSpace
from sartm_ros.node import lifecycle_node
from sartm_ros.node.lifecycle_node import SartmNode

SUCCESS = TransitionCallbackReturn.SUCCESS


@pytest.fixture
def node(monkeypatch):
    network = SimpleNamespace(
        modalities=('rgb', 'thermal'),
        label_space=LabelSpace('two', ('floor', 'wall'), ((0, 0, 0), (255, 0, 0))),
        device='cpu',
        check=lambda *_: None,
    )
    monkeypatch.setattr(lifecycle_node, 'load_predictor', lambda *_: network)
    monkeypatch.setattr(lifecycle_node, 'REPORT_PERIOD_S', 0.02)
    context = Context()
    context.init([])
    node = SartmNode(context=context)
    yield node
    node.close()
    node.destroy_node()
    context.shutdown()


def test_a_node_that_cannot_be_shut_down_goes_on_reporting(node, monkeypatch):
    """The lifecycle lets it be configured and activated again."""
    release = lifecycle_node.memory.release_memory
    faults = ['CUDA error: an illegal memory access was encountered']

    def release_memory() -> None:
        if faults:
            raise RuntimeError(faults.pop())
        release()

    assert node.trigger_configure() == SUCCESS
    monkeypatch.setattr(lifecycle_node.memory, 'release_memory', release_memory)
    assert node.trigger_shutdown() != SUCCESS
    assert not faults
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS

    reports: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def is_silent() -> bool:
        executor.spin_once(0.01)
        return any('no messages on' in report.status[0].message for report in reports)

    wait_until(is_silent, 'a report of the active node', 10)
    assert node.trigger_shutdown() == SUCCESS
