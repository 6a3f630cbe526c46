"""The demo from end to end: bag, installed node in its own process, DDS, pictures, summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rosbags.highlevel import AnyReader
from untrained_checkpoint import save_untrained

from sartm_model.data.synthetic import render_sequence
from sartm_model.inference.predictor import Predictor
from sartm_ros.bag.reading import RGB_TOPIC, THERMAL_TOPIC
from sartm_ros.bag.writing import START_NS, write_bag
from sartm_ros.demo.run import RATE_HZ

pytest.importorskip('rclpy', reason='no rclpy: the node cannot run')

ROOT = Path(__file__).resolve().parents[2]
FRAMES, HEIGHT, WIDTH = 10, 96, 128
TIMEOUT_S = 120


def python(*arguments: object) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]),
    }
    environment.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    return subprocess.run(
        [sys.executable, '-m', *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """(frames, checkpoint, what the demo left behind, what it printed)."""
    folder = tmp_path_factory.mktemp('demo')
    checkpoint = save_untrained(folder / 'nano.safetensors')
    frames = list(render_sequence(1, FRAMES, HEIGHT, WIDTH, condition='night'))
    for part in ('rgb', 'thermal', 'labels'):
        (folder / 'drive' / part).mkdir(parents=True)
        for number, frame in enumerate(frames):
            image = getattr(frame, part)
            image = image[..., ::-1] if part == 'rgb' else image
            assert cv2.imwrite(str(folder / 'drive' / part / f'{number:02d}.png'), image)
    arguments = ['--out', folder / 'out', '--sequence', folder / 'drive']
    result = python('sartm_ros.demo.run', *arguments, '--checkpoint', checkpoint)
    assert result.returncode == 0, result.stderr
    return frames, checkpoint, folder / 'out', result.stdout


def recorded(bag: Path) -> dict[str, list]:
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def frame_of(message) -> int:
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    number, rest = divmod(stamp_ns - START_NS, int(1e9 / RATE_HZ))
    assert rest == 0  # the stamp of an RGB message, untouched
    return number


def test_every_pair_is_accounted_for(demo):
    _, _, out, printed = demo
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames'] == summary['rgb_received'] == summary['thermal_received'] == FRAMES
    # Only a machine that is too busy replaces pairs; then it must say so.
    assert summary['dropped'].keys() <= {'replaced'}
    assert summary['pairs_in'] == FRAMES
    assert summary['pairs_out'] == FRAMES - summary['dropped'].get('replaced', 0)
    assert summary['labels_received'] == summary['overlays_received'] == summary['pairs_out'] > 0
    assert summary['skew_ms'] == {'median': 7.0, 'max': 7.0}
    assert 0 < summary['latency_ms']['median'] <= summary['latency_ms']['p99']
    assert summary['node_exit_status'] == 0
    for word in ('pairs in', 'pairs out', 'dropped', 'latency', 'p99', 'skew', 'mIoU'):
        assert word in printed


def test_the_recorded_labels_are_those_of_the_predictor(demo):
    frames, checkpoint, out, _ = demo
    messages = recorded(out / 'recorded')
    assert {'/sartm/labels', '/sartm/overlay', '/sartm/label_info', '/diagnostics'} == set(messages)
    predictor = Predictor(checkpoint)
    confusion = np.zeros((9, 9), int)
    for message in messages['/sartm/labels']:
        frame = frames[frame_of(message)]
        labels = message.data.reshape(HEIGHT, WIDTH)
        expected = predictor.predict(frame.rgb, frame.thermal).labels
        # The node computes with another number of threads: sums may round differently.
        assert (labels == expected).mean() > 0.999
        np.add.at(confusion, (frame.labels, labels), 1)
    numbers = [frame_of(message) for message in messages['/sartm/labels']]
    assert all(a < b for a, b in pairwise(numbers))

    summary = json.loads((out / 'summary.json').read_text())
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    assert summary['metrics']['miou'] == pytest.approx(100 * (hit / np.maximum(union, 1)).mean())


def test_the_bag_is_the_sequence(demo):
    frames, _, out, _ = demo
    messages = recorded(out / 'bag')
    assert [len(messages[topic]) for topic in (RGB_TOPIC, THERMAL_TOPIC)] == [FRAMES, FRAMES]
    for message in messages[RGB_TOPIC]:
        assert message.data.tobytes() == frames[frame_of(message)].rgb.tobytes()


def test_the_pictures(demo):
    _, _, out, _ = demo
    outputs = json.loads((out / 'summary.json').read_text())['labels_received']
    sheet = Image.open(out / 'sheet.png')
    assert sheet.width > 5 * 320  # five columns: the truth is known
    assert sheet.height > min(6, outputs) * 320 * HEIGHT // WIDTH
    animation = Image.open(out / 'animation.webp')
    assert animation.n_frames == outputs


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--sequence', 'nowhere'], 'nowhere'),
        (['--checkpoint', 'nowhere.safetensors'], 'nowhere.safetensors'),
    ],
)
def test_bad_input_is_one_line(tmp_path, demo, arguments, expected):
    checkpoint = [] if '--checkpoint' in arguments else ['--checkpoint', demo[1]]
    result = python('sartm_ros.demo.run', '--out', tmp_path / 'out', *arguments, *checkpoint)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert expected in result.stderr
    assert not list(tmp_path.glob('out/*'))


def test_the_player_publishes_every_message_and_the_clock(tmp_path):
    """Against a subscriber in this process; what it hears is compared byte by byte."""
    ros = pytest.importorskip('ros_helpers')
    from rclpy.qos import QoSProfile
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image as ImageMessage

    frames = list(render_sequence(2, 8, 48, 64))
    write_bag(frames, tmp_path / 'bag', rate_hz=20)
    peer = ros.Peer()
    try:
        deep = QoSProfile(depth=200)
        images = peer.listen(ImageMessage, RGB_TOPIC, deep)
        clock = peer.listen(Clock, '/clock', deep)
        command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag'), '--loop']
        player = ros.Process(command, tmp_path / 'player.log')
        try:
            # It loops: of some round, all that was published is heard.
            ros.wait_until(lambda: len(images) >= 24, 'three rounds of images')
        finally:
            status = player.stop()
        assert status == 130
    finally:
        peer.close()
    heard = [message.data.tobytes() for message in images]
    sent = [frame.rgb.tobytes() for frame in frames]
    assert set(heard) == set(sent)
    order = [sent.index(data) for data in heard]
    assert all(b == (a + 1) % len(sent) for a, b in pairwise(order[-17:]))
    ticks = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    rounds = sum(b < a for a, b in pairwise(ticks))
    assert rounds >= 2  # back to the start, once a round
    assert min(ticks) >= START_NS
    assert max(ticks) <= START_NS + 7 * 50_000_000


def test_the_player_refuses_what_it_cannot_play(tmp_path):
    result = python('sartm_ros.bag.player', tmp_path / 'missing')
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert 'missing' in result.stderr


def test_the_node_goes_on_where_the_bag_begins_again(tmp_path, demo):
    _, checkpoint, out, _ = demo
    sequence = out.parent / 'drive'
    arguments = ['--out', tmp_path / 'out', '--sequence', sequence, '--loop', 2]
    result = python('sartm_ros.demo.run', *arguments, '--checkpoint', checkpoint)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert summary['frames'] == FRAMES
    assert summary['rgb_received'] == summary['thermal_received'] == 2 * FRAMES
    replaced = summary['dropped'].get('replaced', 0)
    assert summary['dropped'].keys() <= {'replaced'}
    assert summary['pairs_in'] == 2 * FRAMES
    assert sum(summary['labels_by_pass']) == summary['pairs_out'] == 2 * FRAMES - replaced
    assert all(summary['labels_by_pass'])
    assert summary['frames_with_truth'] == summary['pairs_out']
    assert f'{summary["labels_by_pass"][0]}, {summary["labels_by_pass"][1]} labels' in result.stdout

    numbers = [frame_of(m) for m in recorded(tmp_path / 'out' / 'recorded')['/sartm/labels']]
    assert sum(b <= a for a, b in pairwise(numbers)) == 1  # back to the start once
    animation = Image.open(tmp_path / 'out' / 'animation.webp')
    assert getattr(animation, 'n_frames', 1) == summary['labels_by_pass'][0]
