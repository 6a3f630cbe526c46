"""Publishes `/diagnostics` once a second, and logs repeated problems ever more rarely."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from sartm_ros.diagnosis import memory
from sartm_ros.diagnosis.judgement import ERROR, WARN, Report

LOG_PERIOD_S = 5.0
"""Least time between two log lines on the same problem. It doubles with each line; the counters
count every occurrence."""

LONGEST_LOG_PERIOD_S = 320.0

FORGET_S = 30.0
"""A problem that has not occurred for this long is logged as a new one."""

LASTS_S = 3.0
"""A problem of the reports is logged when it has lasted this long."""


class _Repeats:
    """When a repeated problem was logged and occurred last, in monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self.logged_s = self.occurred_s = now_s
        self.period_s = LOG_PERIOD_S


class Diagnostics:
    """Publishes `/diagnostics` and logs problems for a node.

    Any thread may call `warn` and `error`.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._lock = threading.Lock()
        self._repeats: dict[str, _Repeats] = {}
        self._problem, self._problem_since_s = '', 0.0

    def publish(self, report: Report, mismatches: list[str], device: Any) -> None:
        """Publish a report, and log its problem if that lasts.

        Args:
            report: of `judgement.judge`.
            mismatches: QoS mismatches found by `qos`; each is logged and raises the level to WARN.
            device: the network's torch.device, or None.
        """
        self._log_lasting(report)
        for text in mismatches:
            self.warn(text, text)
        if mismatches:
            level = max(report.level, WARN)
            report = replace(report, level=level, message='; '.join([*mismatches, report.message]))
        values = report.values | {'device': str(device or 'none')} | memory.figures(device)
        # Aggregators match names by their beginning and expect no slash there.
        name = f'{self._node.get_fully_qualified_name().lstrip("/")}: inference'
        stamp = self._node.get_clock().now().to_msg()
        report = replace(report, values=values)
        self._publisher.publish(to_message(report, name, values['device'], stamp))

    def warn(self, key: str, text: str) -> None:
        """Log a warning; repeated ones with the same key ever more rarely."""
        if self._is_due(key):
            self._node.get_logger().warning(text)

    def error(self, key: str, text: str) -> None:
        """Log an error; repeated ones with the same key ever more rarely."""
        if self._is_due(key):
            self._node.get_logger().error(text)

    def _log_lasting(self, report: Report) -> None:
        now_s = time.monotonic()
        if report.problem != self._problem:
            self._problem, self._problem_since_s = report.problem, now_s
        if report.problem and now_s - self._problem_since_s >= LASTS_S:
            log = self.error if report.level == ERROR else self.warn
            log(report.problem, report.message)

    def _is_due(self, key: str) -> bool:
        """Return whether a problem that occurs now is to be logged."""
        now_s = time.monotonic()
        with self._lock:
            for name, repeats in list(self._repeats.items()):
                # Some keys name endpoints, which come and go.
                if now_s - repeats.occurred_s > FORGET_S:
                    del self._repeats[name]
            known = self._repeats.get(key)
            if known is None:
                self._repeats[key] = _Repeats(now_s)
                return True
            known.occurred_s = now_s
            if now_s - known.logged_s < known.period_s:
                return False
            known.logged_s = now_s
            known.period_s = min(2 * known.period_s, LONGEST_LOG_PERIOD_S)
            return True


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
