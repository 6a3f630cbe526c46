"""Sends pairs to a node over DDS, one after the other, in the tests of faults.

Import this after `pytest.importorskip('rclpy')`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from processes import TIMEOUT_S, wait_until
from ros_helpers import DROPS, SECOND, Peer, image, stamp_of

FAULTY = 'faulty_network_node.py'
"""The node whose network fails on request, for `running_node`."""

SIZE = (48, 64)
INTERVAL = SECOND // 10
CLASSES = 9  # of the checkpoint


def thermal_image(index: int, code: int | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return counts uint8 that depend on the index and have contrast.

    Args:
        index: of the image.
        code: place of the requested fault in `faulty_network_node.FAULTS`, or None.
        size: (height, width).
    """
    counts = np.full(size, index % 90, np.uint8)
    counts[:, size[1] // 2 :] += 100
    if code is not None:
        counts[0, :4] = (201, 17, 202, code)
    return counts


def label_of(index: int) -> int:
    """Return the class that the faulty node gives all pixels of `thermal_image(index)`."""
    return (index % 90 + 100) % CLASSES


class Exchange:
    """Sends pairs to a node, each with the next stamp, and returns their labels.

    Attributes:
        stamp: of the last pair, in nanoseconds.
        index: of the last pair.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stamp = 2 * SECOND  # after the probes of `Peer.connect`
        self.index = 0

    def pair(
        self, code: int | None = None, stamp: int | None = None, size: tuple[int, int] = SIZE
    ) -> tuple[Any, Any]:
        """Return the RGB and thermal messages of the next pair."""
        self.index += 1
        self.stamp = self.stamp + INTERVAL if stamp is None else stamp
        rgb = np.full((*size, 3), self.index % 251, np.uint8)
        frame_id = f'camera_{self.index}'
        return (
            image(rgb, 'rgb8', self.stamp, frame_id),
            image(thermal_image(self.index, code, size), 'mono8', self.stamp),
        )

    def send(self, **options: Any) -> int:
        """Send the next pair and return its stamp."""
        self.peer.send(*self.pair(**options))
        return self.stamp

    def stream(self, count: int, rate_hz: float = 30.0, **options: Any) -> list[int]:
        """Send pairs at a rate without waiting for labels; return their stamps."""
        stamps = []
        for _ in range(count):
            stamps.append(self.send(**options))
            time.sleep(1 / rate_hz)
        return stamps

    def good(self, **options: Any) -> Any:
        """Send a valid pair and return its labels, which must be right."""
        self.send(**options)
        return self.labels()

    def labels(self, label: int | None = None) -> Any:
        """Return the labels of the last pair, which must all be its class, or `label`.

        The method also waits for the pair's status, after which the node is nearly ready for the
        next pair.
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
        """Wait until `pairs_in` pairs have been published or dropped; return the diagnostics."""

        def ended() -> bool:
            status = self.peer.status()
            drops = sum(status[f'dropped.{reason}'] for reason in DROPS)
            return status['pairs_in'] == pairs_in == status['pairs_out'] + drops

        wait_until(ended, f'{pairs_in} pairs to be accounted for')
        return self.peer.status()
