"""Publishes the images of both cameras at 30 Hz until it is killed: `camera_process.py FRAME_ID`.

Stamps are wall time. Prints a line when both topics have a subscriber.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sartm_ros.messages.cdr import write_image

rclpy.init()
node = rclpy.create_node('cameras')
rgb = node.create_publisher(Image, '/camera/color/image_raw', qos_profile_sensor_data)
thermal = node.create_publisher(Image, '/thermal/image_raw', qos_profile_sensor_data)
while not (rgb.get_subscription_count() and thermal.get_subscription_count()):
    time.sleep(0.01)
print('connected', flush=True)
index = 0
while True:
    index += 1
    header = Header(frame_id=sys.argv[1], stamp=node.get_clock().now().to_msg())
    counts = np.full((480, 640), index % 97, np.uint8)
    counts[:, 320:] += 100
    rgb.publish(write_image(np.full((480, 640, 3), index % 251, np.uint8), 'rgb8', header))
    thermal.publish(write_image(counts, 'mono8', header))
    time.sleep(1 / 30)
