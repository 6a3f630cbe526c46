"""The node with an instant network and another callback that refuses parameters.

The callback is called after the node's own and refuses a `thermal.high` above 1000.
"""

from __future__ import annotations

import sys
from typing import Any

from quick_network_node import main
from rcl_interfaces.msg import SetParametersResult

from sartm_ros.node.lifecycle_node import SartmNode


class SecondOpinionNode(SartmNode):
    """See the module's text."""

    def add_on_set_parameters_callback(self, callback: Any) -> None:
        """Register the refusing callback before another one; rclpy calls the last one first."""
        super().add_on_set_parameters_callback(refuse)
        super().add_on_set_parameters_callback(callback)


def refuse(changes: list[Any]) -> SetParametersResult:
    """See the module's text."""
    refused = any(change.name == 'thermal.high' and change.value > 1000 for change in changes)
    return SetParametersResult(successful=not refused, reason='refused here' if refused else '')


if __name__ == '__main__':
    sys.exit(main(make_node=SecondOpinionNode))
