"""Pairs for the tests of faults, and an exchange of them with a node over DDS, one by one.

Import it after `pytest.importorskip('rclpy')`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ros_helpers import DROPS, SECOND, TIMEOUT_S, Peer, image, stamp_of, wait_until

FAULTY = 'faulty_network_node.py'
"""The node whose network fails when asked to, for `running_node`."""

SIZE = (48, 64)
INTERVAL = SECOND // 10
CLASSES = 9  # of the checkpoint of `random_checkpoint`


def thermal_image(index: int, code: int | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Counts that change from image to image and are neither flat nor a request by chance.

    With `code`, a request for one of the `FAULTS` of the faulty node.
    """
    counts = np.full(size, index % 90, np.uint8)
    counts[:, size[1] // 2 :] += 100
    if code is not None:
        counts[0, :4] = (201, 17, 202, code)
    return counts


def label_of(index: int) -> int:
    """The class that the faulty node gives the pixels of `thermal_image(index)`."""
    return (index % 90 + 100) % CLASSES


class Exchange:
    """Sends pairs to a node, each with the next stamp, and gives back its labels.

    Attributes:
        stamp: of the pair sent last, in nanoseconds.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stamp = 2 * SECOND  # after the probes of `Peer.connect`
        self.index = 0

    def pair(
        self, code: int | None = None, stamp: int | None = None, size: tuple[int, int] = SIZE
    ) -> tuple[Any, Any]:
        """RGB and thermal messages of the next pair."""
        self.index += 1
        self.stamp = self.stamp + INTERVAL if stamp is None else stamp
        rgb = np.full((*size, 3), self.index % 251, np.uint8)
        frame_id = f'camera_{self.index}'
        return (
            image(rgb, 'rgb8', self.stamp, frame_id),
            image(thermal_image(self.index, code, size), 'mono8', self.stamp),
        )

    def send(self, **options: Any) -> int:
        """Send the next pair; returns its stamp."""
        self.peer.send(*self.pair(**options))
        return self.stamp

    def stream(self, count: int, rate_hz: float = 30.0, **options: Any) -> list[int]:
        """Send pairs in step with the clock without waiting for labels; returns their stamps."""
        stamps = []
        for _ in range(count):
            stamps.append(self.send(**options))
            time.sleep(1 / rate_hz)
        return stamps

    def good(self, **options: Any) -> Any:
        """Send a sound pair and wait for its labels, which must be right."""
        self.send(**options)
        return self.labels()

    def labels(self, label: int | None = None) -> Any:
        """The labels of the pair sent last, all of one class: that pair's, or `label`.

        Its status is waited for as well: the node is ready for the next pair then, or nearly so.
        """
        end_s = time.monotonic() + TIMEOUT_S
        frame_id = f'camera_{self.index}'
        while not (self.peer.labels and self.peer.labels[-1].header.frame_id == frame_id):
            assert time.monotonic() < end_s, f'no labels of {frame_id}'
            time.sleep(0.001)
        wait_until(lambda: self.peer.newest.get('stamp_ns') == self.stamp, 'the status')
        msg = self.peer.labels[-1]
        assert stamp_of(msg) == self.stamp
        wanted = label_of(self.index) if label is None else label
        assert (np.frombuffer(msg.data, np.uint8) == wanted).all()
        return msg

    def accounts(self, pairs_in: int) -> dict[str, Any]:
        """The diagnostics once so many pairs have come in and each has come out or been dropped."""

        def ended() -> bool:
            status = self.peer.status()
            drops = sum(status[f'dropped.{reason}'] for reason in DROPS)
            return status['pairs_in'] == pairs_in == status['pairs_out'] + drops

        wait_until(ended, f'{pairs_in} pairs to be accounted for')
        return self.peer.status()
