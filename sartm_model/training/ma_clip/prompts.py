"""The prompts of MA-CLIP: which sensor an image is of, and which scene it shows.

That the prompts are about modality and scene is published; their words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from sartm_model.data.frame import split_conditions

MODALITY_WORDS = {
    'rgb': 'colour',
    'depth_coded': 'depth',
    'hha': 'colour-coded depth',
    'lidar': 'lidar',
    'event': 'event camera',
    'event_voxel3': 'event camera',
    'event_voxel5': 'event camera',
    'polarization': 'polarization',
    'light_field': 'light field',
    'light_field_row': 'light field',
}
"""Modality -> its words before 'image', if they are not the name."""

PLACE_WORDS = {
    'nyuv2': 'a room',
    'nyuv2_hha': 'a room',
    'pst900': 'a tunnel',
    'soda': 'a place',
    'folder': 'a place',
}
"""Data set -> its words; those of the others are `STREET`."""

STREET = 'a street'

CONDITION_WORDS = {
    'day': 'by day',
    'night': 'at night',
    'cloud': 'under clouds',
    'fog': 'in fog',
    'rain': 'in rain',
    'sun': 'in sunshine',
    'motionblur': 'with motion blur',
    'overexposure': 'with overexposure',
    'underexposure': 'with underexposure',
    'lidarjitter': 'with lidar jitter',
    'eventlowres': 'with few events',
}
"""Condition of a frame -> its words, if they are not the name."""


def prompt_words(
    modality: str, dataset: str, condition: str | None, words: Mapping[str, str]
) -> str:
    """Return the words of an image, such as 'thermal image of a street at night'.

    Args:
        modality: of the image.
        dataset: that its frame is of.
        condition: of its frame, see `Frame`.
        words: of modalities, data sets and conditions, in place of those of this file.
    """

    def of(name: str, built_in: Mapping[str, str], default: str) -> str:
        return words.get(name, built_in.get(name, default))

    scene = [
        of(dataset, PLACE_WORDS, STREET),
        *(of(name, CONDITION_WORDS, name) for name in split_conditions(condition)),
    ]
    return f'{of(modality, MODALITY_WORDS, modality)} image of {" ".join(scene)}'


def sensor_of(words: str) -> str:
    """Return the part of an image's words that tells its modality."""
    return words.partition(' image of ')[0]
