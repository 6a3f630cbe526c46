"""Where in the view obstacles are: persons and cars, by label and confidence.

Joins the node's labels and confidence, which have the same stamp, and publishes ~/costs, a mono8
image of the camera's view: 254 obstacle, 0 free, 255 unknown. These are the values of nav2's
costmaps, but the image is not a map, and no layer of nav2 reads it: obstacle_points.py gives nav2
points.

    python3 examples/obstacle_costs.py --ros-args -p classes:="[person, car]" -p min_confidence:=0.6
"""

from __future__ import annotations

from array import array

import numpy as np
import rclpy
from label_images import ClassIds, mono8
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

FREE_SPACE, LETHAL_OBSTACLE, NO_INFORMATION = 0, 254, 255
"""As in nav2_costmap_2d."""

WAITING = 10
"""Most label images that are kept until their confidence arrives."""


def obstacle_costs(
    labels: np.ndarray, confidence: np.ndarray, classes: ClassIds, min_confidence: float
) -> np.ndarray:
    """Return what each pixel is, uint8 `[H, W]`.

    A pixel that the network is not sure of is neither free nor an obstacle.

    Args:
        labels: uint8 `[H, W]`.
        confidence: the probability of the label times 255, uint8 `[H, W]`.
        classes: the classes that are obstacles.
        min_confidence: the least probability of a label that counts.
    """
    costs = np.full(labels.shape, FREE_SPACE, np.uint8)
    costs[np.isin(labels, classes.ids)] = LETHAL_OBSTACLE
    costs[(labels == classes.unknown_id) | (confidence < 255 * min_confidence)] = NO_INFORMATION
    return costs


class ObstacleCosts(Node):
    """Publishes the obstacles in each label image whose confidence arrives."""

    def __init__(self) -> None:
        super().__init__('obstacle_costs')
        self._names = self.declare_parameter('classes', ['person', 'car']).value
        self._min_confidence = self.declare_parameter('min_confidence', 0.6).value
        self._classes: ClassIds | None = None
        self._labels: dict[tuple[int, int], Image] = {}  # by stamp
        self._publisher = self.create_publisher(Image, '~/costs', 1)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(String, 'sartm/classes', self._on_classes, latched)
        self.create_subscription(Image, 'sartm/labels', self._on_labels, 5)
        # The node computes the confidence while somebody subscribes to it.
        self.create_subscription(Image, 'sartm/confidence', self._on_confidence, 5)

    def _on_classes(self, msg: String) -> None:
        self._classes = ClassIds(msg.data, self._names)
        if self._classes.missing:
            self.get_logger().warning(f'the network has no class {self._classes.missing}')

    def _on_labels(self, msg: Image) -> None:
        self._labels[msg.header.stamp.sec, msg.header.stamp.nanosec] = msg
        if len(self._labels) > WAITING:
            del self._labels[next(iter(self._labels))]

    def _on_confidence(self, msg: Image) -> None:
        labels = self._labels.pop((msg.header.stamp.sec, msg.header.stamp.nanosec), None)
        if labels is None or self._classes is None:
            return
        costs = obstacle_costs(mono8(labels), mono8(msg), self._classes, self._min_confidence)
        result = Image(header=msg.header, height=msg.height, width=msg.width, encoding='mono8')
        result.step = msg.width
        result.data = array('B', costs.tobytes())
        self._publisher.publish(result)
        share = np.mean(costs == LETHAL_OBSTACLE)
        self.get_logger().info(f'{share:.1%} of the view is obstacles', throttle_duration_sec=1.0)


if __name__ == '__main__':
    rclpy.init()
    try:
        rclpy.spin(ObstacleCosts())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
