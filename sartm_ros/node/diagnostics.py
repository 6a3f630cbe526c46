"""What a lifecycle node says of itself: `/diagnostics` once a second, and its log now and then."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sartm_ros.node import memory
from sartm_ros.node.health import WARN, Report
from sartm_ros.node.subscriptions import Inputs

LOG_PERIOD_S = 5.0
"""A fault that repeats is logged this often; the counters count every one."""


class Diagnostics:
    """Publishes `/diagnostics` and logs what should be known.

    Args:
        node: which publishes and logs.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._logged_s: dict[str, float] = {}

    def publish(self, report: Report, mismatches: list[str], device: Any) -> None:
        """Publish a report and log what it is about.

        Args:
            report: of `health.Health`.
            mismatches: what `qos` says of topics that cannot be heard; makes it a warning.
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
        """Log a warning, unless one with that key has just been logged."""
        now_s = time.monotonic()
        if now_s - self._logged_s.get(key, -LOG_PERIOD_S) >= LOG_PERIOD_S:
            self._logged_s[key] = now_s
            self._node.get_logger().warning(text)

    def warn_if_silent(self, which: str, silence_s: float, inputs: Inputs) -> None:
        """Log that 'rgb' or 'thermal' has brought nothing for so long, if it is long."""
        if silence_s > LOG_PERIOD_S:
            self.warn(
                f'silent {which}',
                f'no {which} images on {inputs.topics[which]} for {silence_s:.0f} s, '
                f'{inputs.why_silent(which)}',
            )


def to_message(report: Report, name: str, hardware_id: str, stamp: Any) -> DiagnosticArray:
    """The report as an array of one status called `name`."""
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
