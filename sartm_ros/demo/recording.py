"""What a trial recorded, brought together with the bag that was played."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from sartm_ros.bag.contact_sheet import Row
from sartm_ros.bag.reading import LABELS_TOPIC, BagPair, read_images, read_pairs, topics
from sartm_ros.bag.replay import default_matcher
from sartm_ros.demo.trial import LABELS, OVERLAY
from sartm_ros.messages.images import stamp_ns, to_rgb, to_thermal


def results(
    bag: Path, recorded: Path, number: int, stamps: Container[int]
) -> Iterator[tuple[BagPair, Row]]:
    """The pairs for which the node published labels in a pass, and what there is to draw of each.

    Args:
        bag: what was played.
        recorded: what came back.
        number: the pass, from 0.
        stamps: those in nanoseconds of the labels that came in it.
    """
    labels_at = _of_pass(recorded, LABELS, number)
    overlay_at = _of_pass(recorded, OVERLAY, number)
    truth_topic = LABELS_TOPIC if LABELS_TOPIC in topics(bag) else None
    for pair in read_pairs(bag, default_matcher(), labels_topic=truth_topic):
        labels, overlay = labels_at(pair.stamp_ns), overlay_at(pair.stamp_ns)
        if labels is None or pair.stamp_ns not in stamps:
            continue
        yield (
            pair,
            Row(
                caption='',
                rgb=to_rgb(pair.rgb),
                thermal=None if pair.thermal is None else to_thermal(pair.thermal),
                labels=to_thermal(labels),
                overlay=None if overlay is None else to_rgb(overlay),
                truth=None if pair.labels is None else to_thermal(pair.labels),
            ),
        )


def _of_pass(bag: Path, topic: str, number: int) -> Callable[[int], Any]:
    """Looks a topic's message up by its header stamp; asked in rising order, it reads on once.

    Where the stamps jump back the next pass begins.
    """
    if topic not in topics(bag):
        return lambda stamp: None

    def messages() -> Iterator[Any]:
        passed, last_ns = 0, 0
        for _, message in read_images(bag, [topic]):
            stamp = stamp_ns(message.header)
            passed += stamp <= last_ns
            last_ns = stamp
            if passed == number:
                yield message

    found = messages()
    waiting: list[Any] = []

    def look_up(stamp: int) -> Any:
        while not waiting or stamp_ns(waiting[0].header) < stamp:
            waiting[:] = [next(found, None)]
            if waiting[0] is None:
                waiting.clear()
                return None
        return waiting[0] if stamp_ns(waiting[0].header) == stamp else None

    return look_up
