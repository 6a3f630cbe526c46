"""Arrays from the node's messages, and points from labels and depth, for the examples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


class ClassIds:
    """The ids of some classes by their names, from the JSON of `~/classes`.

    A checkpoint has its own classes, so an id means nothing by itself.

    Attributes:
        ids: uint8 ids of the classes wanted that the network has.
        missing: the names of those that it does not have.
        unknown_id: the label of pixels that the network cannot tell.
    """

    def __init__(self, text: str, names: list[str]) -> None:
        classes = json.loads(text)
        known = classes['classes']
        self.ids = np.array([known.index(name) for name in names if name in known], np.uint8)
        self.missing = [name for name in names if name not in known]
        self.unknown_id = int(classes['unknown_id'])


def mono8(msg: Any) -> np.ndarray:
    """Return the pixels of a mono8 `sensor_msgs/Image`, uint8 `[H, W]`. Rows may be padded."""
    return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, : msg.width]


def depth_m(msg: Any) -> np.ndarray:
    """Return a depth image in metres, float32 `[H, W]`; 0 or NaN is no measurement.

    Depth is millimetres in 16UC1 and metres in 32FC1 (REP 118).

    Raises:
        ValueError: the encoding is another one.
    """
    kinds = {'16UC1': ('u2', 1e-3), 'mono16': ('u2', 1e-3), '32FC1': ('f4', 1.0)}
    if msg.encoding not in kinds:
        raise ValueError(f'depth is {msg.encoding}; expected one of {", ".join(kinds)}')
    kind, scale = kinds[msg.encoding]
    order = '>' if msg.is_bigendian else '<'
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)
    values = rows[:, : msg.width * int(kind[1])].copy().view(f'{order}{kind}')
    return values.astype(np.float32) * np.float32(scale)


def obstacle_points(
    labels: np.ndarray, depth: np.ndarray, ids: np.ndarray, intrinsics: np.ndarray, max_range: float
) -> np.ndarray:
    """Return the points of the pixels of some classes, in the camera's optical frame.

    A pixel (u, v) of depth z is x = (u - cx) z / fx, y = (v - cy) z / fy: x to the right, y down,
    z ahead (REP 103).

    Args:
        labels: uint8 `[H, W]`.
        depth: metres, float32 `[H, W]`, registered to the image that the labels are of.
        ids: the classes.
        intrinsics: `[3, 3]`, `k` of the image's `sensor_msgs/CameraInfo`.
        max_range: points further away are left out, metres.

    Returns:
        float32 `[N, 3]`, row by row of the image.
    """
    measured = (depth > 0) & (depth <= max_range)  # False for NaN
    v, u = np.nonzero(np.isin(labels, ids) & measured)
    z = depth[v, u]
    x = (u - intrinsics[0, 2]) * z / intrinsics[0, 0]
    y = (v - intrinsics[1, 2]) * z / intrinsics[1, 1]
    return np.stack([x, y, z], axis=1).astype(np.float32)
