"""Replaying a bag offline: its pairs, its figures and its report."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rosbags.typesys import Stores, get_typestore

from sartm_model.datasets.base import Frame
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.predictor import Prediction
from sartm_ros.bag import (
    COMPRESSED_TYPE,
    THERMAL_TOPIC,
    RawMessage,
    decode,
    open_writer,
    read_raw,
)
from sartm_ros.make_bag import START_NS, Faults, write_bag
from sartm_ros.replay import replay

SHAPE = (12, 16)


class ThresholdPredictor:
    """Says 'person' where thermal is above 100, 'car' where red is above 100, in this order."""

    label_space = MFNET

    def predict(self, rgb, thermal, *, confidence=False, overlay=False, time_s=None):
        labels = np.where(thermal > 100, 2, np.where(rgb[..., 0] > 100, 1, 0)).astype(np.uint8)
        return Prediction(labels, None, np.array(rgb) if overlay else None)


def make_frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(5)
    return [
        Frame(
            name=f'{number:02d}',
            rgb=rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
            thermal=rng.integers(0, 256, SHAPE, dtype=np.uint8),
            labels=rng.choice(np.array([0, 1, 2, 255], np.uint8), SHAPE),
        )
        for number in range(count)
    ]


def accuracy(frames: list[Frame]) -> float:
    """Percent of the labelled pixels that the threshold gets right, pixel by pixel."""
    right = total = 0
    for frame in frames:
        assert frame.rgb is not None
        assert frame.thermal is not None
        assert frame.labels is not None
        for y in range(SHAPE[0]):
            for x in range(SHAPE[1]):
                if frame.labels[y, x] == 255:
                    continue
                said = 2 if frame.thermal[y, x] > 100 else int(frame.rgb[y, x, 0] > 100)
                right += said == frame.labels[y, x]
                total += 1
    return 100 * right / total


def test_every_pair_is_measured_against_the_topic_of_labels(tmp_path):
    frames = make_frames(6)
    write_bag(frames, tmp_path / 'bag', faults=Faults(thermal_offset_s=0.004))
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['pairs'] == result['frames_with_truth'] == 6
    assert result['dropped'] == {}
    assert result['skew_ms'] == {'median': 4.0, 'max': 4.0}
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames))


def test_labels_of_a_folder_go_by_the_order_of_the_rgb_images(tmp_path):
    frames = make_frames(9)
    # Thermal at a third of the rate: labels must follow the RGB images, not the pairs.
    unlabelled = [replace(frame, labels=None) for frame in frames]
    write_bag(unlabelled, tmp_path / 'bag', rate_hz=30, thermal_rate_hz=10)
    (tmp_path / 'labels').mkdir()
    for frame in frames:
        assert cv2.imwrite(str(tmp_path / 'labels' / f'{frame.name}.png'), frame.labels)
    result = replay(tmp_path / 'bag', ThresholdPredictor(), labels=tmp_path / 'labels')
    assert result['pairs'] == 3
    assert sum(result['dropped'].values()) == 6
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames[::3]))


def test_without_truth_there_are_no_metrics(tmp_path):
    write_bag([replace(f, labels=None) for f in make_frames(3)], tmp_path / 'bag')
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['metrics'] is None
    assert result['frames_with_truth'] == 0


def rewrite(source: Path, out: Path, change) -> None:
    with open_writer(out) as write:
        for raw in read_raw(source):
            write(change(raw))


def test_an_image_that_cannot_be_read_is_counted_and_passed_over(tmp_path):
    write_bag(make_frames(5), tmp_path / 'good')

    def spoil_one(raw: RawMessage) -> RawMessage:
        second = decode(raw).header.stamp.nanosec == (START_NS + 100_000_000) % 10**9
        return replace(raw, data=raw.data.replace(b'rgb8', b'rgb7')) if second else raw

    rewrite(tmp_path / 'good', tmp_path / 'bag', spoil_one)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['pairs'] == 4
    assert result['dropped'] == {'bad_image': 1}

    rewrite(
        tmp_path / 'good',
        tmp_path / 'all',
        lambda raw: replace(raw, data=raw.data.replace(b'rgb8', b'rgb7')),
    )
    with pytest.raises(SartmError, match='rgb7'):
        replay(tmp_path / 'all', ThresholdPredictor())


def test_a_bag_without_pairs_says_why(tmp_path):
    write_bag(make_frames(4), tmp_path / 'bag', rate_hz=1, faults=Faults(thermal_offset_s=0.4))
    with pytest.raises(SartmError, match='rgb_'):
        replay(tmp_path / 'bag', ThresholdPredictor())


def test_truth_of_another_label_space(tmp_path):
    frames = [replace(f, labels=np.full(SHAPE, 12, np.uint8)) for f in make_frames(2)]
    write_bag(frames, tmp_path / 'bag')
    with pytest.raises(SartmError, match='12'):
        replay(tmp_path / 'bag', ThresholdPredictor())


class _Page(HTMLParser):
    """Checks that tags are closed in order, and keeps what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.text = ''

    def handle_starttag(self, tag, attrs):
        if tag == 'img':
            self.images.append(dict(attrs)['src'])
        elif tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report(tmp_path):
    frames = make_frames(20)
    write_bag(frames, tmp_path / 'a <bag>')
    result = replay(tmp_path / 'a <bag>', ThresholdPredictor(), report=tmp_path / 'report')
    report = tmp_path / 'report'
    assert {p.name for p in report.iterdir()} == {'report.html', 'frames.csv', 'sheet.png'}

    lines = list(csv.DictReader((report / 'frames.csv').open()))
    assert [int(line['rgb_index']) for line in lines] == list(range(20))
    person = 100 * (frames[7].thermal > 100).mean()
    assert float(lines[7]['person_percent']) == pytest.approx(person, abs=1e-3)
    assert float(lines[7]['pixel_accuracy_percent']) == pytest.approx(
        accuracy(frames[7:8]), abs=1e-3
    )

    html = (report / 'report.html').read_text()
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert 'Replay of a <bag>' in page.text
    assert f'{result["metrics"]["miou"]:.1f} %' in page.text
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # it needs nothing beside it
    (source,) = page.images
    embedded = base64.b64decode(source.partition('base64,')[2])
    assert embedded == (report / 'sheet.png').read_bytes()
    assert Image.open(io.BytesIO(embedded)).size[0] > 1000


def test_a_bag_of_compressed_images_gives_what_the_images_give(tmp_path):
    """RGB and truth as PNG, thermal as 16-bit PNG, as `ros2 bag record` takes them."""
    frames = make_frames(4)
    write_bag(frames, tmp_path / 'raw')
    types = get_typestore(Stores.ROS2_JAZZY)
    compressed_type = types.types['sensor_msgs/msg/CompressedImage']

    def compressed(raw: RawMessage) -> RawMessage:
        message = decode(raw)
        pixels = message.data.reshape(*SHAPE, -1)[..., ::-1]
        if raw.topic == THERMAL_TOPIC:
            pixels = pixels.astype(np.uint16)
        new = compressed_type(
            header=message.header,
            format=f'{message.encoding}; png compressed bgr8',
            data=np.frombuffer(cv2.imencode('.png', pixels)[1].tobytes(), np.uint8),
        )
        data = bytes(types.serialize_cdr(new, COMPRESSED_TYPE))
        return replace(raw, type=COMPRESSED_TYPE, data=data)

    rewrite(tmp_path / 'raw', tmp_path / 'compressed', compressed)
    result = replay(tmp_path / 'compressed', ThresholdPredictor())
    assert result['pairs'] == result['frames_with_truth'] == 4
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames))
