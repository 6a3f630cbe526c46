"""What a pipeline publishes of a pair, without ROS."""

from __future__ import annotations

from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_ros.node.frame_pipeline import FramePipeline
from sartm_ros.node.health import Health
from sartm_ros.node.parameters import Parameters


class StatusRecorder:
    """Publishers of which the status alone is kept."""

    def __init__(self) -> None:
        self.statuses: SimpleQueue[dict] = SimpleQueue()

    def has_listener(self, name):
        return False

    def publish_status(self, status):
        self.statuses.put(status)

    def publish(self, *_):
        pass

    publish_latency = publish_compressed = publish


def predict(images, **_):
    """Stand for a network: every label is 0."""
    labels = np.zeros(images['rgb'].shape[:2], np.uint8)
    return SimpleNamespace(labels=labels, confidence=None, overlay=None, stages_s={})


def message(encoding: str, pixels: np.ndarray) -> SimpleNamespace:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=5, nanosec=0), frame_id='')
    height, width = pixels.shape[:2]
    fields = {'height': height, 'width': width, 'step': pixels.strides[0], 'is_bigendian': 0}
    return SimpleNamespace(header=header, encoding=encoding, data=pixels.tobytes(), **fields)


@pytest.mark.parametrize('x', ['thermal', 'depth'])
def test_the_status_says_which_sensor_the_second_one_is(x):
    publishers, warnings = StatusRecorder(), []
    pipeline = FramePipeline(
        SimpleNamespace(predict=predict),
        Parameters(x_modality=x),
        Health(x),
        publishers,
        warn=lambda _, text: warnings.append(text),
    )
    rng = np.random.default_rng(0)
    pipeline.add('rgb', message('rgb8', rng.integers(0, 256, (48, 64, 3), np.uint8)))
    pipeline.add(x, message('mono16', rng.integers(500, 5000, (48, 64), np.uint16)))
    status = publishers.statuses.get(timeout=60)
    pipeline.stop()
    assert (status['modality'], status['x_modality']) == ('both', x)
    assert (status['rgb'], status[x]) == ('ok', 'ok')
    assert warnings == []
