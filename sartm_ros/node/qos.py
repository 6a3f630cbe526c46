"""Quality of service of the node's topics, and a text that names both sides of a mismatch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.duration import Infinite
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions

from sartm_model.errors import SartmError

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import (  # type: ignore[no-redef]
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
    )


# rclpy's own warnings of a mismatch do not name the other side.
QUIET_PUBLISHER = PublisherEventCallbacks(use_default_callbacks=False)
QUIET_SUBSCRIPTION = SubscriptionEventCallbacks(use_default_callbacks=False)


_UNHURRIED: dict[str, Any] = {
    'deadline': Infinite,
    'liveliness': LivelinessPolicy.AUTOMATIC,
    'liveliness_lease_duration': Infinite,
}
"""The defaults of what is published, said outright: so they can be compared with a request."""


def input_qos() -> QoSProfile:
    """Sensor data: the newest images, none sent again; it matches every publisher."""
    return QoSProfile(
        reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=5
    )


def output_qos() -> QoSProfile:
    """The newest result, reliably."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        **_UNHURRIED,
    )


def latched_qos() -> QoSProfile:
    """The last message also for those who subscribe later."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        **_UNHURRIED,
    )


def overridable() -> QoSOverridingOptions:
    """Parameters `qos_overrides.<topic>.<publisher or subscription>.<policy>` for an endpoint."""
    return QoSOverridingOptions(
        (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
    )


@contextmanager
def checked(topic: str) -> Iterator[None]:
    """Around the creation of an endpoint of `topic`: a wrong override becomes a SartmError."""
    try:
        yield
    except (RuntimeError, ValueError, InvalidQosOverridesError) as error:
        raise SartmError(f'{topic} cannot be opened: {error}') from error


def input_mismatch(node: Any, topic: str, type_name: str, asked: QoSProfile) -> str:
    """Which publishers of a topic do not offer what is asked for, and what to do; '' where all do.

    `topic` is the full name, `type_name` like 'sensor_msgs/msg/Image'. The graph is looked at, not
    events: those say when a mismatch begins, but not that it is over.
    """
    infos = [i for i in node.get_publishers_info_by_topic(topic) if i.topic_type == type_name]
    others = [(i, problem) for i in infos if (problem := _problem(i.qos_profile, asked))]
    if not others:
        return ''
    return (
        f'{topic}: this node asks for {_describe(asked)}, which does not go with the offer of '
        f'{_endpoints(others)}; no images will come from there. '
        f'Set qos_overrides.{topic}.subscription.reliability to best_effort, '
        'or change the publisher'
    )


def output_mismatch(node: Any, topic: str, offered: QoSProfile) -> str:
    """Likewise which subscriptions ask for more than is offered."""
    infos = node.get_subscriptions_info_by_topic(topic)
    others = [(i, problem) for i in infos if (problem := _problem(offered, i.qos_profile))]
    if not others:
        return ''
    remedy = 'Change the subscriber'
    if offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        remedy = (
            f'Set qos_overrides.{topic}.publisher.reliability to reliable, or change the subscriber'
        )
    return (
        f'{topic}: this node offers {_describe(offered)}, which does not go with the request of '
        f'{_endpoints(others)}; nothing will arrive there. {remedy}'
    )


def _problem(offered: QoSProfile, asked: QoSProfile) -> str:
    compatibility, reasons = qos_check_compatible(offered, asked)
    if compatibility != QoSCompatibility.ERROR:
        return ''
    return reasons.replace('ERROR: ', '').strip(';').replace(';', ', ')


def _describe(qos: Any) -> str:
    return f'{qos.reliability.name} {qos.durability.name}'


def _endpoints(others: list[tuple[Any, str]]) -> str:
    names = []
    for info, problem in others:
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        names.append(f'{name} ({_describe(info.qos_profile)}): {problem}')
    return '; '.join(names)
