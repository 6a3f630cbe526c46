"""Matches what the node published with the bag that was played to it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from sartm_model.evaluation.contact_sheet import Row
from sartm_ros.bag.reading import (
    LABELS_TOPIC,
    BagPair,
    bag_topics,
    default_x_topic,
    read_images,
    read_pairs,
)
from sartm_ros.demo.recorder import LABELS, OVERLAY
from sartm_ros.messages.images import stamp_of, to_modality, to_rgb, to_thermal
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.matching import make_pair_matcher


def results(
    bag: Path, recorded: Path, number: int, stamps: Container[int], x_modality: str
) -> Iterator[tuple[BagPair, Row]]:
    """Yield the pairs whose labels the node published in one pass, with the pictures to draw.

    Args:
        bag: the bag that was played.
        recorded: the bag of the node's outputs.
        number: the pass, from 0.
        stamps: header stamps in nanoseconds of the labels received in this pass.
        x_modality: of the second camera.
    """
    labels_at = _lookup(recorded, LABELS, number)
    overlay_at = _lookup(recorded, OVERLAY, number)
    labels_topic = LABELS_TOPIC if LABELS_TOPIC in bag_topics(bag) else None
    matcher = make_pair_matcher(Parameters(x_modality=x_modality))
    for pair in read_pairs(
        bag, matcher, x_topic=default_x_topic(x_modality), labels_topic=labels_topic
    ):
        labels, overlay = labels_at(pair.stamp_ns), overlay_at(pair.stamp_ns)
        if labels is None or pair.stamp_ns not in stamps:
            continue
        yield (
            pair,
            Row(
                caption='',
                images={
                    'rgb': to_rgb(pair.rgb),
                    x_modality: None if pair.x is None else to_modality(pair.x, x_modality),
                },
                labels=to_thermal(labels),
                overlay=None if overlay is None else to_rgb(overlay),
                ground_truth=None if pair.labels is None else to_thermal(pair.labels),
            ),
        )


def _lookup(bag: Path, topic: str, number: int) -> Callable[[int], Any]:
    """Return a function that finds the message of a header stamp in one pass, or None.

    It reads the bag once, so it must be called with increasing stamps.
    """
    if topic not in bag_topics(bag):
        return lambda stamp_ns: None

    def messages() -> Iterator[Any]:
        """Yield the messages of the pass; where the stamps jump back the next pass begins."""
        current, last_ns = 0, 0
        for _, message in read_images(bag, [topic]):
            stamp_ns = stamp_of(message.header)
            current += stamp_ns <= last_ns
            last_ns = stamp_ns
            if current == number:
                yield message

    remaining = messages()
    upcoming = next(remaining, None)

    def find(stamp_ns: int) -> Any:
        nonlocal upcoming
        while upcoming is not None and stamp_of(upcoming.header) < stamp_ns:
            upcoming = next(remaining, None)
        found = upcoming is not None and stamp_of(upcoming.header) == stamp_ns
        return upcoming if found else None

    return find
