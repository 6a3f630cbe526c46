"""The demo from end to end: bag, installed node in its own process, DDS, pictures, summary.

One run of the demo, which plays the bag twice, serves all tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from processes import child_environment
from rosbags.highlevel import AnyReader

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render_sequence
from sartm_model.inference.predictor import Predictor
from sartm_ros.bag.reading import RGB_TOPIC, THERMAL_TOPIC
from sartm_ros.bag.writing import START_NS
from sartm_ros.demo.run import RATE_HZ, format_summary, main

FRAMES, HEIGHT, WIDTH = 10, 96, 128
PASSES = 2
TIMEOUT_S = 120


@dataclass
class Demo:
    """The sequence of frames, and what the demo wrote and printed."""

    frames: list[Frame]
    out: Path
    summary: dict[str, Any]
    printed: str


@pytest.fixture(scope='module')
def demo(tmp_path_factory, nano_checkpoint) -> Demo:
    folder = tmp_path_factory.mktemp('demo')
    frames = list(render_sequence(1, FRAMES, HEIGHT, WIDTH, condition='night'))
    for part in ('rgb', 'thermal', 'labels'):
        (folder / 'drive' / part).mkdir(parents=True)
        for number, frame in enumerate(frames):
            image = getattr(frame, part)
            image = image[..., ::-1] if part == 'rgb' else image
            assert cv2.imwrite(str(folder / 'drive' / part / f'{number:02d}.png'), image)
    out = folder / 'out'
    arguments = ['--out', out, '--sequence', folder / 'drive', '--checkpoint', nano_checkpoint]
    result = subprocess.run(
        [sys.executable, '-m', 'sartm_ros.demo.run', *map(str, arguments), '--loop', str(PASSES)],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((out / 'summary.json').read_text())
    return Demo(frames, out, summary, result.stdout)


def recorded(bag: Path) -> dict[str, list]:
    """The messages of a bag by topic, read by rosbags' own reader."""
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def frame_of(message) -> int:
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    number, rest = divmod(stamp_ns - START_NS, int(1e9 / RATE_HZ))
    assert rest == 0  # the stamp of an RGB message, unchanged
    return number


def test_every_pair_is_accounted_for(demo):
    summary = demo.summary
    assert summary['frames'] == FRAMES
    assert summary['rgb_received'] == summary['thermal_received'] == PASSES * FRAMES
    # Only a machine that is too busy replaces pairs; then the summary must say so.
    assert summary['dropped'].keys() <= {'replaced'}
    assert summary['pairs_in'] == PASSES * FRAMES
    assert summary['pairs_out'] == PASSES * FRAMES - summary['dropped'].get('replaced', 0)
    assert summary['labels_received'] == summary['overlays_received'] == summary['pairs_out'] > 0
    assert summary['frames_with_truth'] == summary['pairs_out']
    assert summary['skew_ms'] == {'median': 7.0, 'max': 7.0}
    assert 0 < summary['latency_ms']['median'] <= summary['latency_ms']['p99']
    assert summary['node_exit_status'] == 0
    for word in ('pairs in', 'pairs out', 'dropped', 'latency', 'p99', 'skew', 'mIoU'):
        assert word in demo.printed


def test_the_node_continues_when_the_bag_begins_again(demo):
    by_pass = demo.summary['labels_by_pass']
    assert len(by_pass) == PASSES
    assert all(by_pass)
    assert sum(by_pass) == demo.summary['pairs_out']
    assert f'{by_pass[0]}, {by_pass[1]} labels' in demo.printed
    numbers = [frame_of(m) for m in recorded(demo.out / 'recorded')['/sartm/labels']]
    assert sum(b <= a for a, b in pairwise(numbers)) == PASSES - 1


def test_the_recorded_labels_are_those_of_the_predictor(demo, nano_checkpoint):
    messages = recorded(demo.out / 'recorded')
    assert {'/sartm/labels', '/sartm/overlay', '/sartm/classes', '/diagnostics'} == set(messages)
    predictor = Predictor(nano_checkpoint)
    expected = [predictor.predict(frame.rgb, frame.thermal).labels for frame in demo.frames]
    confusion = np.zeros((9, 9), int)
    for message in messages['/sartm/labels']:
        labels = message.data.reshape(HEIGHT, WIDTH)
        # The node computes with another number of threads: sums may round differently.
        assert (labels == expected[frame_of(message)]).mean() > 0.999
        np.add.at(confusion, (demo.frames[frame_of(message)].labels, labels), 1)
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    miou = 100 * (hit / np.maximum(union, 1)).mean()
    assert demo.summary['metrics']['miou'] == pytest.approx(miou)


def test_the_bag_is_the_sequence(demo):
    messages = recorded(demo.out / 'bag')
    assert [len(messages[topic]) for topic in (RGB_TOPIC, THERMAL_TOPIC)] == [FRAMES, FRAMES]
    for message in messages[RGB_TOPIC]:
        assert message.data.tobytes() == demo.frames[frame_of(message)].rgb.tobytes()


def test_the_pictures(demo):
    first_pass = demo.summary['labels_by_pass'][0]
    sheet = Image.open(demo.out / 'sheet.png')
    assert sheet.width > 5 * 320  # five columns, because there is ground truth
    assert sheet.height > min(6, first_pass) * 320 * HEIGHT // WIDTH
    animation = Image.open(demo.out / 'animation.webp')
    assert getattr(animation, 'n_frames', 1) == first_pass


def test_the_text_of_one_pass_does_not_list_passes(demo):
    summary = demo.summary | {'labels_by_pass': [FRAMES], 'metrics': None, 'dropped': {}}
    text = format_summary(summary)
    assert 'by pass' not in text
    assert 'mIoU' not in text
    assert 'note' not in text
    replaced = format_summary(summary | {'dropped': {'replaced': 3}})
    assert '3 replaced' in replaced
    assert 'slower than the recorded rate' in replaced


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--sequence', 'nowhere'], 'nowhere'),
        (['--checkpoint', 'nowhere.safetensors'], 'nowhere.safetensors'),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, nano_checkpoint, arguments, expected):
    checkpoint = [] if '--checkpoint' in arguments else ['--checkpoint', str(nano_checkpoint)]
    assert main(['--out', str(tmp_path / 'out'), *arguments, *checkpoint]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert expected in line
    assert not list(tmp_path.glob('out/*'))
