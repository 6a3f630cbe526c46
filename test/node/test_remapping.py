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
from sartm_ros.node.subscriptions import Subscriptions
from sartm_ros.settings.parameters import Parameters

SWAPPED = [
    *('-r', f'camera/color/image_raw:={THERMAL_TOPIC}'),
    *('-r', f'thermal/image_raw:={RGB_TOPIC}'),
    *('-r', '~/labels:=/sartm/overlay'),
    *('-r', '~/overlay:=/sartm/labels'),
    *('-r', '~/confidence:=/front/confidence'),
    *('-r', '~/labels/compressed:=/elsewhere'),
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
    publishers = Publishers(node)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(Image, '~/labels', lambda _: None, latched)
    (text,) = wait_until(publishers.qos_mismatches, 'the mismatch')
    assert text.startswith('/sartm/overlay: this node offers RELIABLE VOLATILE')
    publishers.close()


def test_a_compressed_topic_goes_where_its_image_topic_goes(node):
    """Subscribers of image_transport look for it beside the image topic."""
    publishers = Publishers(node)
    topics = {topic for topic, _ in node.get_publisher_names_and_types_by_node('sartm', '/')}
    publishers.close()
    assert '/front/confidence' in topics
    assert '/front/confidence/compressed' in topics
    assert '/elsewhere' in topics
    assert not topics & {'/sartm/confidence/compressed', '/sartm/labels/compressed'}
