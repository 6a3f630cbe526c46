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
from processes import child_environment, wait_until
from rosbags.highlevel import AnyReader
from untrained_checkpoint import save_untrained

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sartm_model.config import ModelConfig
from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render_sequence
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.modalities import MODALITIES
from sartm_model.models.checkpoint import save
from sartm_model.models.registry import build
from sartm_ros.bag.reading import RGB_TOPIC, THERMAL_TOPIC
from sartm_ros.bag.writing import START_NS
from sartm_ros.demo.node_process import child_process, stop_process
from sartm_ros.demo.run import RATE_HZ, demo_frames, format_summary, main

FRAMES, HEIGHT, WIDTH = 10, 96, 128
PASSES = 2
TIMEOUT_S = 300


@dataclass
class Demo:
    """The sequence of frames, and what the demo wrote and printed."""

    frames: list[Frame]
    out: Path
    summary: dict[str, Any]
    printed: str


@pytest.fixture(scope='module')
def drive(tmp_path_factory) -> tuple[Path, list[Frame]]:
    """A folder with a sequence, and its frames."""
    folder = tmp_path_factory.mktemp('drive')
    frames = list(render_sequence(1, FRAMES, HEIGHT, WIDTH, condition='night'))
    for part in ('rgb', 'thermal', 'labels'):
        (folder / part).mkdir()
        for number, frame in enumerate(frames):
            image = getattr(frame, part)
            image = image[..., ::-1] if part == 'rgb' else image
            assert cv2.imwrite(str(folder / part / f'{number:02d}.png'), image)
    return folder, frames


def run_demo(program: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the demo in a process of its own."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope='module')
def demo(tmp_path_factory, drive, nano_checkpoint) -> Demo:
    folder, frames = drive
    out = tmp_path_factory.mktemp('demo') / 'out'
    arguments = ['--out', out, '--sequence', folder, '--checkpoint', nano_checkpoint]
    result = run_demo(['-m', 'sartm_ros.demo.run'], *arguments, '--loop', PASSES)
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
    assert (summary['node_ended_by'], summary['node_exit_status']) == ('SIGINT', 0)
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


def test_another_second_camera(tmp_path):
    """Depth in a folder of its own, to a network of RGB and depth."""
    frames = list(render_sequence(1, 4, HEIGHT, WIDTH, modalities=('rgb', 'depth')))
    for name in ('rgb', 'depth'):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(frames):
            image = frame.images[name]
            image = image[..., ::-1] if name == 'rgb' else image
            assert cv2.imwrite(str(tmp_path / name / f'{number:02d}.png'), image)
    checkpoint = save_untrained(tmp_path / 'depth.safetensors', modalities=('rgb', 'depth'))
    out = tmp_path / 'out'
    arguments = ['--out', out, '--sequence', tmp_path, '--checkpoint', checkpoint]
    result = run_demo(['-m', 'sartm_ros.demo.run'], *arguments, '--modality', 'depth')
    assert result.returncode == 0, result.stderr
    summary = json.loads((out / 'summary.json').read_text())
    assert (summary['x_modality'], summary['depth_received'], summary['pairs_in']) == (
        'depth',
        4,
        4,
    )
    assert summary['skew_ms'] == {'median': 7.0, 'max': 7.0}
    sent = recorded(out / 'bag')['/depth/image_raw']
    assert {message.encoding for message in sent} == {'16UC1'}
    assert sent[0].data.tobytes() == frames[0].images['depth'].tobytes()
    predictor = Predictor(checkpoint)
    for message in recorded(out / 'recorded')['/sartm/labels']:
        expected = predictor.predict(frames[frame_of(message)].images).labels
        assert (message.data.reshape(HEIGHT, WIDTH) == expected).mean() > 0.999
    assert Image.open(out / 'sheet.png').width > 4 * 320
    assert getattr(Image.open(out / 'animation.webp'), 'n_frames', 1) == summary['pairs_out']


@pytest.mark.parametrize('x', ['depth', 'event', 'polarization', 'light_field'])
def test_the_generated_drive_has_the_sensor(x):
    frame = next(demo_frames(None, x, MFNET))
    assert list(frame.images) == ['rgb', x]
    MODALITIES[x].check(frame.images[x])


def test_a_sensor_without_a_shipped_checkpoint_is_one_line(tmp_path, capsys):
    assert main(['--out', str(tmp_path), '--modality', 'event']) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert 'no checkpoint for RGB and event' in line
    assert 'CHECKPOINT=FILE' in line


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (ModelConfig(modalities=('rgb', 'depth')), 'MODALITY=depth'),
        (ModelConfig('segformer', 'b0', ('thermal',)), 'CHECKPOINT=FILE'),
        (ModelConfig('segformer', 'b0', ('rgb',)), 'CHECKPOINT=FILE'),
    ],
)
def test_a_network_that_does_not_take_both_images_is_one_line(
    tmp_path, drive, capsys, config, words
):
    """Before anything is written, and not after a wait for subscriptions of the node."""
    checkpoint = tmp_path / 'other.safetensors'
    save(checkpoint, build(config, len(MFNET)), MFNET, {})
    out = tmp_path / 'out'
    arguments = ['--out', out, '--sequence', drive[0], '--checkpoint', checkpoint]
    assert main([*map(str, arguments)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f'{checkpoint} takes {" and ".join(config.modalities)} images' in line
    assert 'plays rgb and thermal' in line
    assert words in line
    assert ('MODALITY' in line) == ('depth' in config.modalities)
    assert not out.exists()


@pytest.mark.slow
def test_the_shipped_checkpoint_on_a_generated_drive(tmp_path):
    arguments = ['--out', tmp_path, '--modality', 'depth']
    result = run_demo(['-m', 'sartm_ros.demo.run'], *arguments)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['checkpoint'] == 'demo_depth'
    assert summary['pairs_out'] > 0
    assert summary['frames_with_truth'] > 0


STUBBORN = """\
#!{python}
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})  # for every thread
from sartm_ros.node.main import main
sys.exit(main())
"""

WITH_A_STUBBORN_NODE = """
import functools, pathlib, sys
from sartm_ros.demo import node_process, play_and_record, run
node = pathlib.Path(sys.argv.pop(1))
node_process.find_node = lambda: node
play_and_record.stop_process = functools.partial(node_process.stop_process, patience_s=12)
sys.exit(run.main())
"""


@pytest.mark.slow
def test_a_node_that_does_not_end_by_sigint_costs_no_result(tmp_path, drive, nano_checkpoint):
    node, out = tmp_path / 'stubborn_node', tmp_path / 'out'
    node.write_text(STUBBORN.format(python=sys.executable))
    node.chmod(0o755)
    arguments = ['--out', out, '--sequence', drive[0], '--checkpoint', nano_checkpoint]
    result = run_demo(['-c', WITH_A_STUBBORN_NODE], node, *arguments)
    assert result.returncode == 1, result.stderr
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['node_ended_by'] == 'SIGTERM'
    assert summary['pairs_out'] > 0
    assert 'the node ended by SIGTERM with status 0, not by SIGINT' in result.stdout
    assert (out / 'sheet.png').is_file()
    assert (out / 'animation.webp').is_file()


@pytest.mark.parametrize('ignored', [[], ['SIGINT'], ['SIGINT', 'SIGTERM']])
def test_a_process_is_stopped_by_the_mildest_signal_that_works(tmp_path, ignored):
    log = tmp_path / 'log'
    code = 'import signal, time\n'
    code += ''.join(f'signal.signal(signal.{name}, signal.SIG_IGN)\n' for name in ignored)
    code += 'print("ready", flush=True)\ntime.sleep(1000)'
    with child_process([sys.executable, '-c', code], log) as process:
        wait_until(lambda: 'ready' in log.read_text(), 'the process')
        expected = ('SIGINT', 'SIGTERM', 'SIGKILL')[len(ignored)]
        # A process that heeds a signal is given the time to do so on a busy machine.
        assert stop_process(process, 1.0 if len(ignored) == 2 else 3.0) == expected
        assert stop_process(process) == ''


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
