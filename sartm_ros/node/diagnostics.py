"""Publishes `/diagnostics` once a second, and logs repeated warnings at a limited rate."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sartm_ros.node import memory
from sartm_ros.node.health import WARN, Report
from sartm_ros.node.subscriptions import Subscriptions

LOG_PERIOD_S = 5.0
"""A repeated warning is logged at most once in this time; the counters count every occurrence."""


class Diagnostics:
    """Publishes `/diagnostics` and logs warnings for a node."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._logged_s: dict[str, float] = {}

    def publish(self, report: Report, mismatches: list[str], device: Any) -> None:
        """Publish a report.

        Args:
            report: of `health.Health`.
            mismatches: QoS mismatches found by `qos`; each is logged and raises the level to WARN.
            device: the network's torch.device, or None.
        """
        for text in mismatches:
            self.warn(text, text)
        if mismatches:
            level = max(report.level, WARN)
            report = replace(report, level=level, message='; '.join([*mismatches, report.message]))
        values = report.values | {'device': str(device or 'none')} | memory.figures(device)
        name = f'{self._node.get_fully_qualified_name()}: inference'
        stamp = self._node.get_clock().now().to_msg()
        report = replace(report, values=values)
        self._publisher.publish(to_message(report, name, values['device'], stamp))

    def warn(self, key: str, text: str) -> None:
        """Log a warning, unless one with the same key was logged within `LOG_PERIOD_S`."""
        now_s = time.monotonic()
        if now_s - self._logged_s.get(key, -LOG_PERIOD_S) >= LOG_PERIOD_S:
            self._logged_s[key] = now_s
            self._node.get_logger().warning(text)

    def warn_if_silent(self, camera: str, silence_s: float, subscriptions: Subscriptions) -> None:
        """Log that 'rgb' or 'thermal' has been silent for more than `LOG_PERIOD_S`."""
        if silence_s > LOG_PERIOD_S:
            self.warn(
                f'silent {camera}',
                f'no {camera} images on {subscriptions.topics[camera]} for {silence_s:.0f} s, '
                f'{subscriptions.explain_silence(camera)}',
            )


def to_message(report: Report, name: str, hardware_id: str, stamp: Any) -> DiagnosticArray:
    """Return the report as an array of one status called `name`."""
    status = DiagnosticStatus(
        level=bytes([report.level]),
        name=name,
        message=report.message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
