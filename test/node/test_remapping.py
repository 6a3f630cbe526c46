"""Topics that are remapped: the endpoints, and what the node knows of the other side."""

from __future__ import annotations

import pytest
from processes import wait_until

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import RGB_TOPIC, THERMAL_TOPIC
from sensor_msgs.msg import CompressedImage, Image

from sartm_ros.node.publishers import Publishers
from sartm_ros.node.subscriptions import Subscriptions, topic_names
from sartm_ros.settings.parameters import Parameters

SWAPPED = [
    *('-r', f'camera/color/image_raw:={THERMAL_TOPIC}'),
    *('-r', f'thermal/image_raw:={RGB_TOPIC}'),
    *('-r', '~/labels:=/sartm/overlay'),
    *('-r', '~/overlay:=/sartm/labels'),
    *('-r', '~/confidence:=/front/confidence'),
]
"""A name that is remapped twice comes back to where it was."""


@pytest.fixture
def node():
    context = Context()
    context.init(['--ros-args', *SWAPPED])
    node = LifecycleNode('sartm', context=context)
    yield node
    node.destroy_node()
    context.shutdown()


def test_inputs_are_remapped_once(node):
    drivers = {
        'rgb': node.create_publisher(CompressedImage, 'camera/color/image_raw', 1),
        'thermal': node.create_publisher(Image, 'thermal/image_raw', 1),
    }
    inputs = Subscriptions(node, Parameters(), *3 * [lambda *_: None])
    assert inputs.topics == {'rgb': THERMAL_TOPIC, 'thermal': RGB_TOPIC}
    for camera, driver in drivers.items():
        assert driver.topic_name == inputs.topics[camera]
        wait_until(lambda d=driver: d.get_subscription_count() == 1, f'the subscriber of {camera}')
    assert inputs.describe() == f'{THERMAL_TOPIC} (compressed) + {RGB_TOPIC} (raw)'
    inputs.close()


def test_outputs_are_remapped_once(node):
    publishers = Publishers(node, [])
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(Image, '~/labels', lambda _: None, latched)
    (text,) = wait_until(publishers.qos_mismatches, 'the mismatch')
    assert text.startswith('/sartm/overlay: this node offers RELIABLE VOLATILE')
    publishers.close()


def published_topics(node, namespace='/') -> set[str]:
    return {topic for topic, _ in node.get_publisher_names_and_types_by_node('sartm', namespace)}


def test_a_compressed_topic_goes_where_its_image_topic_goes(node):
    """Subscribers of image_transport look for it beside the image topic."""
    publishers = Publishers(node, [])
    expected = {
        *('/front/confidence', '/front/confidence/compressed'),
        *('/sartm/overlay', '/sartm/overlay/compressed'),  # of the labels
        *('/sartm/labels', '/sartm/labels/compressed'),  # of the overlay
    }
    wait_until(lambda: expected <= published_topics(node), 'the publishers')
    assert '/sartm/confidence/compressed' not in published_topics(node)
    publishers.close()


@pytest.mark.parametrize(
    ('namespace', 'rules', 'expected'),
    [
        ('/a', ['~/labels:=/seg/labels'], {'/seg/labels/compressed', '/seg/camera_info'}),
        (
            '/b',
            ['~/labels:=/seg/b', '~/labels/compressed:=/png', '~/camera_info:=/calibration'],
            {'/png', '/calibration'},
        ),
        (
            '/d',  # the driver publishes /d/camera/color/camera_info
            ['~/labels:=camera/color/labels'],
            {'/d/camera/color/labels/compressed', '/d/sartm/camera_info'},
        ),
        ('/c', [], {'/c/sartm/labels/compressed', '/c/sartm/camera_info'}),
    ],
)
def test_what_goes_with_the_labels_can_be_remapped_itself(namespace, rules, expected):
    context = Context()
    context.init(['--ros-args', *(word for rule in rules for word in ('-r', rule))])
    node = LifecycleNode('sartm', context=context, namespace=namespace)
    publishers = Publishers(node, topic_names(node, Parameters()).values())
    wait_until(lambda: expected <= published_topics(node, namespace), 'the publishers')
    assert f'{namespace}/camera/color/camera_info' not in published_topics(node, namespace)
    publishers.close()
    node.destroy_node()
    context.shutdown()
