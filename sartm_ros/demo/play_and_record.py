"""Starts the installed node as a process, plays a bag to it and records what it publishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rclpy.context import Context

from sartm_model.errors import SartmError
from sartm_ros.bag.reading import open_writer
from sartm_ros.demo.node_process import node_process, stop_process, tail, use_own_domain
from sartm_ros.demo.recorder import Recording, open_recorder

PATIENCE_S = 120.0  # loading torch and predicting the last frames may take long on a slow machine
POLL_S = 0.02


def play_and_record(
    bag: Path,
    out: Path,
    *,
    checkpoint: str,
    x_modality: str,
    height: int,
    width: int,
    log: Path,
    passes: int = 1,
) -> Recording:
    """Play `bag` at its recorded rate to a node and record its outputs as the bag `out`.

    The node is reached over DDS alone, in a ROS domain of its own.

    Args:
        bag: with the node's default topics.
        out: a new bag with labels, overlay, classes and diagnostics.
        checkpoint: the node's parameter.
        x_modality: of the second camera, the node's parameter.
        height, width: size of the RGB images, for the node's warm-up.
        log: receives what the node prints.
        passes: how often the bag is played; its stamps and the clock jump back in between.

    Raises SartmError if the node is not installed, does not become active or dies; the last lines
    of its log are part of the text.
    """
    use_own_domain()
    parameters = {
        'use_sim_time': 'true',
        'checkpoint': checkpoint,
        'x_modality': x_modality,
        'warm_up.height': height,
        'warm_up.width': width,
    }
    context = Context()
    context.init()
    try:
        with (
            node_process(parameters, log) as process,
            open_writer(out) as recorded,
            open_recorder(context, recorded, x_modality) as recorder,
        ):

            def wait_for(problem: str, holds: Callable[[], bool]) -> None:
                end_s = time.monotonic() + PATIENCE_S
                while not holds():
                    status = process.poll()
                    if status is not None:
                        raise SartmError(f'the node ended with status {status}: {tail(log)}')
                    if time.monotonic() > end_s:
                        raise SartmError(f'after {PATIENCE_S:g} s {problem}: {tail(log)}')
                    time.sleep(POLL_S)

            recorder.play(bag, passes, wait_for)
            recorder.recording.ended_by = stop_process(process)
            recorder.recording.exit_status = process.returncode
        return recorder.recording
    finally:
        context.try_shutdown()
