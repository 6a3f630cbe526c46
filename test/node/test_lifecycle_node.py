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
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

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


def test_a_parameter_set_during_the_activation_is_refused(node, monkeypatch):
    """As the executor's thread may, while the main thread starts the node."""
    results = []

    class Pipeline(lifecycle_node.FramePipeline):
        def __init__(self, *args, **kwargs) -> None:
            results.extend(node.set_parameters([Parameter('max_rate', value=5.0)]))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(lifecycle_node, 'FramePipeline', Pipeline)
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    (result,) = results
    assert not result.successful
    assert result.reason.startswith('the node is being configured or activated')
    assert node.get_parameter('max_rate').value == 0.0
    (result,) = node.set_parameters([Parameter('max_rate', value=5.0)])
    assert result.successful


def test_a_node_disabled_as_soon_as_it_can_be_stays_so(node, monkeypatch):
    """`~/set_enabled` is served as soon as there is a pipeline."""
    responses = []

    class Timer(lifecycle_node.DeadlineTimer):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            (service,) = (s for s in node.services if s.srv_type is SetBool)
            responses.append(service.callback(SetBool.Request(data=False), SetBool.Response()))

    monkeypatch.setattr(lifecycle_node, 'DeadlineTimer', Timer)
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    assert responses[0].success
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    reports: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, '/diagnostics', reports.append, 10)

    def is_reported() -> list[DiagnosticArray]:
        executor.spin_once(0.01)
        return reports

    wait_until(is_reported, 'a report', 10)
    assert reports[-1].status[0].message == 'disabled'
