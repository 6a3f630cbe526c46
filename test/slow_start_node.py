"""The node with a network whose loading does not end."""

from __future__ import annotations

import sys
import time
from typing import Any

from sartm_ros.node import lifecycle_node
from sartm_ros.node.main import main


def load_predictor(*_: Any) -> None:
    """Take its time, as compiling a large network does."""
    print('loading', flush=True)
    while True:
        time.sleep(0.01)


lifecycle_node.load_predictor = load_predictor  # type: ignore[assignment]
lifecycle_node.REPORT_PERIOD_S = 0.2

if __name__ == '__main__':
    sys.exit(main())
