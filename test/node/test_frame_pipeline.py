"""What a pipeline publishes of a pair, without ROS."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_ros.diagnosis.failures import Failures
from sartm_ros.diagnosis.health import Health
from sartm_ros.diagnosis.input_timing import InputTiming
from sartm_ros.diagnosis.judgement import WARN, judge
from sartm_ros.node import frame_pipeline
from sartm_ros.node.frame_pipeline import FramePipeline
from sartm_ros.settings.parameters import Parameters


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

    publish_latency = publish_compressed = publish_camera_info = publish


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
    publishers, warnings, asked = StatusRecorder(), [], []

    def record(images, **arguments):
        asked.append(arguments)
        return predict(images)

    pipeline = FramePipeline(
        SimpleNamespace(predict=record),
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
    assert [arguments['time_s'] for arguments in asked] == [5.0]  # the stamp
    assert warnings == []


def test_a_fixed_range_that_misses_the_image_is_logged_and_judged():
    """The default ends of `thermal.range: fixed` are counts of 8 bits."""
    publishers, warnings, health = StatusRecorder(), [], Health('thermal')
    settings = Parameters(thermal_range='fixed')
    pipeline = FramePipeline(
        SimpleNamespace(predict=predict, thermal_settings=None),
        settings,
        health,
        publishers,
        warn=lambda _, text: warnings.append(text),
    )
    rng = np.random.default_rng(0)
    pipeline.add('rgb', message('rgb8', rng.integers(0, 256, (48, 64, 3), np.uint8)))
    thermal = np.linspace(27800, 30300, 48 * 64).reshape(48, 64).astype(np.uint16)
    pipeline.add('thermal', message('mono16', thermal))
    status = publishers.statuses.get(timeout=60)
    pipeline.stop()
    assert (status['modality'], status['thermal']) == ('both', 'ok')
    (text,) = warnings
    low, high = np.quantile(thermal, (0.01, 0.99))
    assert f'from {low:.0f} to {high:.0f} ' in text
    assert 'fixed range from 0 to 255' in text
    assert 'thermal.low' in text
    topics = {'rgb': '/color', 'thermal': '/thermal'}
    report = judge(health.recent({}), InputTiming(settings), topics, lambda _: '')
    assert (report.level, report.message) == (WARN, text)


def test_an_image_from_before_a_restart_is_not_held():
    """While the node was disabled the scene may have become another one."""
    publishers = StatusRecorder()
    settings = Parameters(thermal_on_stall='hold', thermal_hold_at_most_s=60.0)
    network = SimpleNamespace(predict=predict)
    pipeline = FramePipeline(network, settings, Health('thermal'), publishers, warn=lambda *_: None)
    rng = np.random.default_rng(0)
    rgb = message('rgb8', rng.integers(0, 256, (48, 64, 3), np.uint8))
    good = message('mono16', rng.integers(500, 5000, (48, 64), np.uint16))
    flat = message('mono16', np.full((48, 64), 3000, np.uint16))
    served = []
    for thermal in (good, flat):
        pipeline.add('rgb', rgb)
        pipeline.add('thermal', thermal)
        status = publishers.statuses.get(timeout=60)
        served.append((status['modality'], status['thermal']))
        pipeline.restart()
    pipeline.stop()
    assert served == [('both', 'ok'), ('rgb', 'flat')]


class OutOfMemoryPublishers(StatusRecorder):
    """Publishers that have no memory for a compressed image."""

    def publish_compressed(self, *_):
        raise MemoryError('no memory for a PNG')


def test_a_result_without_its_other_outputs_is_no_drop():
    publishers, warnings, health = OutOfMemoryPublishers(), SimpleQueue(), Health('thermal')
    pipeline = FramePipeline(
        SimpleNamespace(predict=predict),
        Parameters(thermal_topic=''),
        health,
        publishers,
        warn=lambda *warning: warnings.put(warning),
    )
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    pipeline.add('rgb', message('rgb8', rgb))
    text = warnings.get(timeout=60)[1]
    pipeline.stop()
    assert text.startswith('labels are published, but not all other outputs:')
    assert 'MemoryError: no memory for a PNG' in text
    assert publishers.statuses.qsize() == 1
    values = health.recent({}).values
    assert values['pairs_in'] == values['pairs_out'] == values['missing_outputs'] == '1'
    assert not any(name.startswith('dropped.') and values[name] != '0' for name in values)
    assert values['last_error'] == 'MemoryError: no memory for a PNG'
    # The pause that every lack of memory makes is before the next pair.
    assert Failures(health, lambda *_: None).handle(MemoryError(), published=True) > 0


@pytest.mark.parametrize(('rate_hz', 'expected'), [(0.0, 300), (10.0, 100), (20.0, 200), (7.0, 70)])
def test_max_rate_is_the_mean_rate_of_results(monkeypatch, rate_hz, expected):
    """Ten seconds of a camera at 30 Hz whose images come up to 3 ms too early or too late."""
    rng = np.random.default_rng(1)
    arrivals_s = 100 + np.arange(300) / 30 + rng.uniform(-0.003, 0.003, 300)
    now_ns = 0
    clock = SimpleNamespace(monotonic_ns=lambda: now_ns, monotonic=time.monotonic)
    monkeypatch.setattr(frame_pipeline, 'time', clock)
    health = Health('thermal')
    settings = Parameters(thermal_topic='', max_rate_hz=rate_hz)
    network = SimpleNamespace(predict=predict)
    pipeline = FramePipeline(network, settings, health, StatusRecorder(), warn=lambda *_: None)
    rgb, taken_s = message('rgb8', np.zeros((8, 8, 3), np.uint8)), []
    for number, arrival_s in enumerate(arrivals_s):
        now_ns = int(arrival_s * 1e9)
        rgb = copy.deepcopy(rgb)
        rgb.header.stamp.nanosec, rgb.header.stamp.sec = 1000 * number, 5
        before = health.counts({}).get('dropped.rate', 0)
        pipeline.add('rgb', rgb)
        if health.counts({}).get('dropped.rate', 0) == before:
            taken_s.append(arrival_s)
    pipeline.stop()
    assert len(taken_s) == pytest.approx(expected, abs=2)
    if rate_hz:
        assert np.diff(taken_s).min() >= 0.5 / rate_hz


def test_a_new_max_rate_has_effect_at_once(monkeypatch):
    now_ns = 10**12
    clock = SimpleNamespace(monotonic_ns=lambda: now_ns, monotonic=time.monotonic)
    monkeypatch.setattr(frame_pipeline, 'time', clock)
    health, settings = Health('thermal'), Parameters(thermal_topic='', max_rate_hz=0.01)
    network = SimpleNamespace(predict=predict)
    pipeline = FramePipeline(network, settings, health, StatusRecorder(), warn=lambda *_: None)
    dropped = []
    for number in range(3):
        now_ns += 10**9
        if number == 2:
            pipeline.apply(replace(settings, max_rate_hz=10.0))
        rgb = message('rgb8', np.zeros((8, 8, 3), np.uint8))
        rgb.header.stamp.nanosec = number
        pipeline.add('rgb', rgb)
        dropped.append(health.counts({}).get('dropped.rate', 0))
    pipeline.stop()
    assert dropped == [0, 1, 1]
