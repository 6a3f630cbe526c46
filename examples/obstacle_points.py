"""Joins labels with depth by message_filters: points of persons and cars for nav2's obstacle layer.

Subscribes to the node's labels, to a depth image registered to the RGB image and to its CameraInfo,
and publishes ~/points, a sensor_msgs/PointCloud2 in the frame of the labels. These points mark
obstacles; another source, such as a lidar, has to clear them. In the parameters of nav2's costmap:

    obstacle_layer:
      observation_sources: scan sartm
      sartm:
        topic: /obstacle_points/points
        data_type: PointCloud2
        marking: true
        clearing: false
        min_obstacle_height: 0.05
        max_obstacle_height: 2.0
        obstacle_max_range: 10.0

A point marks an obstacle if its height in the costmap's global frame is within the two limits
(metres) and its distance from the camera is below the range. By default both limits are 0.0, so
that nothing is marked, and the range is 2.5. The lower limit leaves out points on the floor; the
layer has limits of its own, by default 0.0 and 2.0.

    python3 examples/obstacle_points.py --ros-args \
        -p depth_topic:=/camera/camera/aligned_depth_to_color/image_raw \
        -p info_topic:=/camera/camera/color/camera_info

Other parameters: classes, max_range (metres), max_skew (seconds). It needs ROS' message_filters.
"""

from __future__ import annotations

from array import array

import numpy as np
import rclpy
from label_images import ClassIds, depth_m, mono8, obstacle_points
from message_filters import ApproximateTimeSynchronizer, Subscriber
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header, String


class ObstaclePoints(Node):
    """Publishes the points of each pair of labels and depth."""

    def __init__(self) -> None:
        super().__init__('obstacle_points')
        self._names = self.declare_parameter('classes', ['person', 'car']).value
        self._max_range = self.declare_parameter('max_range', 10.0).value
        depth_topic = self.declare_parameter(
            'depth_topic', '/camera/aligned_depth_to_color/image_raw'
        ).value
        info_topic = self.declare_parameter('info_topic', '/camera/color/camera_info').value
        max_skew_s = self.declare_parameter('max_skew', 0.05).value
        self._classes: ClassIds | None = None
        self._intrinsics: np.ndarray | None = None
        self._publisher = self.create_publisher(PointCloud2, '~/points', 1)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(String, 'sartm/classes', self._on_classes, latched)
        self.create_subscription(CameraInfo, info_topic, self._on_info, qos_profile_sensor_data)
        # Labels arrive later than the depth of their time by the latency of the network: the queue
        # holds the depth images of a second.
        self._sync = ApproximateTimeSynchronizer(
            [
                Subscriber(self, Image, 'sartm/labels', qos_profile=QoSProfile(depth=5)),
                Subscriber(self, Image, depth_topic, qos_profile=qos_profile_sensor_data),
            ],
            queue_size=30,
            slop=max_skew_s,
        )
        self._sync.registerCallback(self._on_pair)

    def _on_classes(self, msg: String) -> None:
        self._classes = ClassIds(msg.data, self._names)
        if self._classes.missing:
            self.get_logger().warning(f'the network has no class {self._classes.missing}')

    def _on_info(self, msg: CameraInfo) -> None:
        self._intrinsics = np.reshape(msg.k, (3, 3))

    def _on_pair(self, labels: Image, depth: Image) -> None:
        if self._classes is None or self._intrinsics is None:
            return
        if (labels.height, labels.width) != (depth.height, depth.width):
            self.get_logger().warning(
                f'labels are {labels.width}x{labels.height}, depth {depth.width}x{depth.height}; '
                'expected depth that is registered to the RGB image',
                throttle_duration_sec=10.0,
            )
            return
        points = obstacle_points(
            mono8(labels), depth_m(depth), self._classes.ids, self._intrinsics, self._max_range
        )
        self._publisher.publish(point_cloud(points, labels.header))


def point_cloud(points: np.ndarray, header: Header) -> PointCloud2:
    """Return a message of float32 `[N, 3]` points."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate('xyz')
    ]
    count = len(points)
    return PointCloud2(
        header=header,
        height=1,
        width=count,
        fields=fields,
        point_step=12,
        row_step=12 * count,
        data=array('B', points.astype('<f4').tobytes()),
        is_dense=True,
    )


if __name__ == '__main__':
    rclpy.init()
    try:
        rclpy.spin(ObstaclePoints())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
