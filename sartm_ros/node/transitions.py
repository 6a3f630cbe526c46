"""Lifecycle transitions that say in the log that they are done, or why they fail."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

Callback = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def logged(done: str) -> Callable[[Callback], Callback]:
    """Decorate a transition's callback; rclpy logs neither a transition nor its exception.

    Args:
        done: the past participle for the log, such as 'deactivated'.
    """

    def decorate(callback: Callback) -> Callback:
        @functools.wraps(callback)
        def run(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                result = callback(node, state)
            except Exception as error:
                return node.fail_transition(done, error)
            node.get_logger().info(done)
            return result

        return run

    return decorate
