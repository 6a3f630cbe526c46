"""The two cameras of the node: RGB, and a second one, X, of the modality `x_modality`.

A camera is called by its modality, 'rgb' or for instance 'thermal', in counters, drop reasons, the
status and the log. Thermal has parameters of its own for topic and transport; every other modality
has `x_topic` and `x_transport`. No ROS import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sartm_model.errors import SartmError
from sartm_ros.settings.parameters import Parameters

AUTO_TOPIC = 'auto'
"""The value of `x_topic` that stands for `<x_modality>/image_raw`, as thermal's default is."""


def camera_names(parameters: Parameters) -> tuple[str, str]:
    """Return the names of both cameras, RGB first."""
    return 'rgb', parameters.x_modality


def selections(x_modality: str) -> tuple[str, str, str]:
    """Return what the network may be given of a pair: both images, or that of one camera."""
    return 'both', 'rgb', x_modality


def topic_parameter(camera: str) -> str:
    """Return the parameter with the topic of a camera."""
    return f'{camera if camera in ("rgb", "thermal") else "x"}_topic'


def camera_topics(parameters: Parameters) -> dict[str, str]:
    """Return the topic of each camera; '' where there is no such camera."""
    given = {
        name: str(getattr(parameters, topic_parameter(name))) for name in camera_names(parameters)
    }
    auto = f'{parameters.x_modality}/image_raw'
    return {name: auto if topic == AUTO_TOPIC else topic for name, topic in given.items()}


def with_topics(parameters: Parameters, topics: Mapping[str, str]) -> Parameters:
    """Return the parameters with other topics of cameras."""
    changes = {topic_parameter(name): topic for name, topic in topics.items()}
    return replace(parameters, **changes)  # type: ignore[arg-type]


def transport_parameter(camera: str) -> str:
    """Return the parameter with the transport of a camera's topic."""
    return topic_parameter(camera).replace('topic', 'transport')


def camera_transports(parameters: Parameters) -> dict[str, str]:
    """Return the transport that is asked for of each camera's topic."""
    return {
        name: str(getattr(parameters, transport_parameter(name)))
        for name in camera_names(parameters)
    }


def require_two_topics(parameters: Parameters, full_names: Mapping[str, str]) -> None:
    """Raise SartmError if both cameras have the same topic.

    Args:
        parameters: as they were given, for the text of the error.
        full_names: the full topic name of each camera, '' where there is no such camera.
    """
    rgb_topic, x_topic = (full_names.get(name, '') for name in camera_names(parameters))
    if rgb_topic and rgb_topic == x_topic:
        given = camera_topics(parameters)[parameters.x_modality]
        raise SartmError(
            f'parameter {topic_parameter(parameters.x_modality)} is {given!r}; expected another '
            f'topic than rgb_topic, which is {rgb_topic} too'
        )


def one_camera(parameters: Parameters) -> bool:
    """Return whether one of the topics is empty, so that each image is segmented alone."""
    return not all(camera_topics(parameters).values())


def without_unused_topics(parameters: Parameters, modalities: Sequence[str]) -> Parameters:
    """Return the parameters in which the topics of images that a network does not take are empty.

    Args:
        parameters: of the node.
        modalities: of the network.

    Raises:
        SartmError: no topic is left, or `x_modality` was set to a modality that the network does
            not take.
    """
    given = camera_topics(parameters)
    x_modality = parameters.x_modality
    takes = f'the network takes {" and ".join(modalities)} images'
    others = [name for name in modalities if name != 'rgb']
    if given[x_modality] and x_modality not in modalities and x_modality != 'thermal':
        remedy = f'set x_modality to {" or ".join(others)}, or use' if others else 'use'
        raise SartmError(f'x_modality is {x_modality}, but {takes}; {remedy} another checkpoint')
    used = with_topics(parameters, {name: '' for name in given if name not in modalities})
    if not any(camera_topics(used).values()):
        needed = ' or '.join(topic_parameter(name) for name in given if name in modalities)
        if needed:
            raise SartmError(f'{takes}, but {needed} is empty; name a topic')
        raise SartmError(f'{takes}; set x_modality to {" or ".join(others)}, and x_topic')
    return used


def forgotten_modality(parameters: Parameters, modalities: Sequence[str]) -> str:
    """Return a warning if a network takes another second sensor than the parameters name, or ''."""
    x_modality = parameters.x_modality
    others = [name for name in modalities if name != 'rgb']
    if x_modality in modalities or not others or not camera_topics(parameters)[x_modality]:
        return ''
    return (
        f'{topic_parameter(x_modality)} is not used: the network takes {" and ".join(modalities)}; '
        f'for labels from both cameras set x_modality to {" or ".join(others)}, and x_topic'
    )
