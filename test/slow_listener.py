"""Subscribes to the labels, reliably and with a long queue, and prints a line for each."""

from __future__ import annotations

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('slow_listener')
node.create_subscription(
    Image,
    '/sartm/labels',
    lambda msg: print(msg.header.frame_id, flush=True),
    QoSProfile(depth=100),
)
rclpy.spin(node)
