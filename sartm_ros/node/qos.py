"""Quality of service (QoS) of the node's topics, and descriptions of incompatible endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.duration import Infinite
from rclpy.exceptions import ParameterException
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


# rclpy's own warnings of a mismatch do not name the other endpoint.
QUIET_PUBLISHER = PublisherEventCallbacks(use_default_callbacks=False)
QUIET_SUBSCRIPTION = SubscriptionEventCallbacks(use_default_callbacks=False)


_DEFAULTS: dict[str, Any] = {
    'deadline': Infinite,
    'liveliness': LivelinessPolicy.AUTOMATIC,
    'liveliness_lease_duration': Infinite,
}
"""The defaults of a publisher, written out so that they can be compared with a request."""


def input_qos() -> QoSProfile:
    """Return the QoS of the image subscriptions: best effort, compatible with every publisher."""
    return QoSProfile(
        reliability=ReliabilityPolicy.BEST_EFFORT, history=HistoryPolicy.KEEP_LAST, depth=5
    )


def output_qos() -> QoSProfile:
    """Return the QoS of the results: reliable, the newest one only."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        **_DEFAULTS,
    )


def latched_qos() -> QoSProfile:
    """Return the QoS of messages that late subscribers receive too."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        **_DEFAULTS,
    )


def overridable() -> QoSOverridingOptions:
    """Return the QoS policies of an endpoint that parameters `qos_overrides.<topic>...` may set."""
    return QoSOverridingOptions(
        (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
    )


@contextmanager
def translate_errors(topic: str) -> Iterator[None]:
    """Raise rclpy's errors of a wrong QoS override as SartmError.

    Args:
        topic: of the endpoint that is created meanwhile.
    """
    try:
        yield
    except (RuntimeError, ValueError, ParameterException, InvalidQosOverridesError) as error:
        raise SartmError(f'{topic} cannot be opened: {error}') from error


def input_mismatch(topic: str, publishers: Iterable[Any], requested: QoSProfile) -> str:
    """Return which publishers are incompatible with a subscription and what to do, or ''.

    They are taken from the graph, because QoS events tell only when a mismatch begins.

    Args:
        topic: the full name.
        publishers: `rclpy.topic_endpoint_info.TopicEndpointInfo` of those of the same type.
        requested: the QoS of the subscription.
    """
    others = [(i, problem) for i in publishers if (problem := _problem(i.qos_profile, requested))]
    if not others:
        return ''
    return (
        f'{topic}: this node requests {_describe(requested)}, which is incompatible with the '
        f'offer of {_endpoints(others)}; no images arrive from there. '
        f'Set qos_overrides.{topic}.subscription.reliability to best_effort, '
        'or change the publisher'
    )


def output_mismatch(topic: str, subscriptions: Iterable[Any], offered: QoSProfile) -> str:
    """Return which subscriptions are incompatible with a publisher and what to do, or ''.

    The arguments are those of `input_mismatch`, for the other side.
    """
    others = [(i, problem) for i in subscriptions if (problem := _problem(offered, i.qos_profile))]
    if not others:
        return ''
    remedy = 'Change the subscriber'
    if offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        remedy = (
            f'Set qos_overrides.{topic}.publisher.reliability to reliable, or change the subscriber'
        )
    return (
        f'{topic}: this node offers {_describe(offered)}, which is incompatible with the '
        f'request of {_endpoints(others)}; nothing arrives there. {remedy}'
    )


def _problem(offered: QoSProfile, requested: QoSProfile) -> str:
    compatibility, reasons = qos_check_compatible(offered, requested)
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
