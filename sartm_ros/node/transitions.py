"""What rclpy's lifecycle transitions lack: a log, and an answer where they are not possible."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

Callback = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(done: str) -> Callable[[Callback], Callback]:
    """Decorate a transition's callback: its end is logged, and its exception fails the transition.

    rclpy logs neither.

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


def answer_impossible_transitions(node: Any) -> None:
    """Let `~/change_state` answer with failure where a transition is not possible.

    If the request names the transition by its number, as nav2's lifecycle manager does, rclpy
    raises instead, and the caller waits forever. rcl logs the transition and the state.

    Args:
        node: a lifecycle node that is not spun yet.
    """
    (service,) = (service for service in node.services if service.srv_type is ChangeState)
    change_state = service.callback

    def answer(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except RuntimeError as error:  # rclpy's RCLError; those of the node's own code are caught
            node.get_logger().warning(f'~/change_state is refused: {error}')
            response.success = False
            return response

    service.callback = answer
