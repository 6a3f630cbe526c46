"""The thermal images of a bag, which `sartm pseudo-label` finds through an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from sartm_model.pseudo_labels.from_segments import SourceImage
from sartm_ros.bag.reading import (
    THERMAL_TOPIC,
    RawMessage,
    bag_topics,
    check_image_type,
    decode,
    read_raw,
)
from sartm_ros.messages.images import to_thermal


def thermal_images(bag: Path, topic: str | None) -> tuple[int, Iterator[SourceImage]]:
    """Return the number of thermal images in a bag, and the images in the order of receiving.

    An image is named after the bag and its position. It is decoded when it is read.

    Args:
        bag: a rosbag2 folder, or one `.mcap` or `.db3` file.
        topic: of the images; None for the node's default.

    Raises:
        SartmError: the bag cannot be read, or has no such topic, or one that carries no images.
    """
    topic = topic or THERMAL_TOPIC
    found = bag_topics(bag, [topic])
    check_image_type(bag, topic, found[topic].type)
    messages = enumerate(read_raw(bag, [topic]))
    images = (
        SourceImage(f'{bag.stem}_{index:06d}', None, partial(_read, raw)) for index, raw in messages
    )
    return found[topic].messages, images


def _read(raw: RawMessage) -> np.ndarray:
    return to_thermal(decode(raw))
