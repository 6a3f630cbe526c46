"""Quality of service of the node's topics, and a warning that names both sides of a mismatch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
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


NAMES_DELAY_S = 1.0


def input_qos() -> QoSProfile:
    """Sensor data: the newest images, none sent again; it matches every publisher."""
    return QoSProfile(
        reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=5
    )


def output_qos() -> QoSProfile:
    """The newest result, reliably."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST, depth=1
    )


def latched_qos() -> QoSProfile:
    """The last message also for those who subscribe later."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
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


def subscription_events(
    node: Any, topic: str, qos: QoSProfile, warn: Callable[[str], None]
) -> SubscriptionEventCallbacks:
    """Warns of each publisher whose offer `qos` does not accept. `topic` is the full name."""

    def say(policy: str) -> None:
        others = _endpoints(node.get_publishers_info_by_topic(topic))
        warn(
            f'{topic}: this node asks for {_describe(qos)}, which does not go with the offer of '
            f'{others} ({policy}): no images will come from there. '
            f'Set qos_overrides.{topic}.subscription.reliability, or change the publisher'
        )

    return SubscriptionEventCallbacks(incompatible_qos=partial(_say_soon, node, say))


def publisher_events(
    node: Any, topic: str, qos: QoSProfile, warn: Callable[[str], None]
) -> PublisherEventCallbacks:
    """Warns of each subscription that asks for more than `qos` offers. `topic` is the full name."""

    def say(policy: str) -> None:
        others = _endpoints(node.get_subscriptions_info_by_topic(topic))
        warn(
            f'{topic}: this node offers {_describe(qos)}, which does not go with the request of '
            f'{others} ({policy}): nothing will arrive there. '
            f'Set qos_overrides.{topic}.publisher.reliability, or change the subscriber'
        )

    return PublisherEventCallbacks(incompatible_qos=partial(_say_soon, node, say))


def _say_soon(node: Any, say: Callable[[str], None], event: Any) -> None:
    """Call `say` with the policy's name when the names of the other side have come in too."""
    policy = qos_policy_name_from_kind(event.last_policy_kind)

    def once() -> None:
        node.destroy_timer(timer)
        say(policy)

    timer = node.create_timer(NAMES_DELAY_S, once, clock=Clock(clock_type=ClockType.STEADY_TIME))


def _describe(qos: Any) -> str:
    return f'{qos.reliability.name} {qos.durability.name}'


def _endpoints(infos: list[Any]) -> str:
    names = []
    for info in infos:
        name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
        names.append(f'{name} ({_describe(info.qos_profile)})')
    return ', '.join(names) or 'another node'
