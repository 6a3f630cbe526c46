"""Bags with faults: each is where it was asked for, and nothing else changes."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from sartm_model.cli.main import main as cli
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_ros.bag.reading import (
    LABELS_TOPIC,
    RGB_TOPIC,
    THERMAL_TOPIC,
    default_x_topic,
    read_pairs,
)
from sartm_ros.bag.writing import START_NS, Faults, parse_freeze, write_bag
from sartm_ros.messages.images import to_modality
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.matching import make_pair_matcher

PERIOD_NS = 100_000_000
SHAPE = (2, 3)


def make_frames(count: int) -> list[Frame]:
    """Frames whose images hold the frame's number in every pixel."""
    return [
        Frame(
            name=f'{number:03d}',
            images={
                'rgb': np.full((*SHAPE, 3), number, np.uint8),
                'thermal': np.full(SHAPE, number, np.uint8),
            },
            labels=np.full(SHAPE, number % 9, np.uint8),
        )
        for number in range(count)
    ]


def messages(folder: Path, faults: Faults, count: int = 200, **settings) -> dict[str, list]:
    """{topic: [(receive time, header stamp, number of the frame shown)]} of a bag made so."""
    write_bag(make_frames(count), folder / 'bag', faults=faults, **settings)
    found: dict[str, list] = {}
    with AnyReader([folder / 'bag']) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            found.setdefault(connection.topic, []).append((time_ns, stamp, int(message.data[0])))
    return found


def at(number: int) -> int:
    return START_NS + number * PERIOD_NS


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_jitter_delays_the_receipt_and_leaves_stamps_and_order(tmp_path, storage):
    # More than a period: a message would overtake the one before, if the link let it.
    found = messages(tmp_path, Faults(jitter_s=0.25), storage=storage)
    for topic in (RGB_TOPIC, THERMAL_TOPIC):
        assert [line[1:] for line in found[topic]] == [(at(n), n) for n in range(200)]
        times = [line[0] for line in found[topic]]
        assert times == sorted(times)
        late = np.array([time - at(number) for number, time in enumerate(times)])
        assert late.min() >= 0
        assert late.max() <= 250_000_000
        assert late.std() > 30_000_000
    assert [line[0] for line in found[LABELS_TOPIC]] == [at(n) for n in range(200)]


def test_dropped_images_are_missing_and_the_others_as_they_were(tmp_path):
    found = messages(tmp_path, Faults(drop=0.2))
    kept = {}
    for topic in (RGB_TOPIC, THERMAL_TOPIC):
        kept[topic] = {number for _, _, number in found[topic]}
        assert all(time == stamp == at(number) for time, stamp, number in found[topic])
        # 200 draws at 0.2: mean 40, standard deviation 5.7
        assert 15 < 200 - len(found[topic]) < 65
    assert kept[RGB_TOPIC] != kept[THERMAL_TOPIC]
    assert len(found[LABELS_TOPIC]) == 200


def test_the_seed_decides_and_each_fault_has_its_own_chances(tmp_path):
    def kept(name: str, **faults) -> list:
        found = messages(tmp_path / name, Faults(drop=0.3, **faults), count=60)
        return [(topic, stamp) for topic in (RGB_TOPIC, THERMAL_TOPIC) for _, stamp, _ in
                found[topic]]  # fmt: skip

    first = kept('a', seed=3)
    assert kept('b', seed=3) == first
    assert kept('c', seed=3, jitter_s=0.02) == first
    assert kept('d', seed=4) != first


@pytest.mark.parametrize('offset_s', [0.03, -0.04])
def test_the_thermal_offset_moves_thermal_alone(tmp_path, offset_s):
    found = messages(tmp_path, Faults(thermal_offset_s=offset_s), count=5)
    moved = [at(number) + round(offset_s * 1e9) for number in range(5)]
    assert [line[:2] for line in found[THERMAL_TOPIC]] == [(time, time) for time in moved]
    assert [line[1] for line in found[RGB_TOPIC]] == [at(number) for number in range(5)]


def test_a_freeze_repeats_the_last_image_with_stamps_that_go_on(tmp_path):
    faults = Faults(freezes=((0.0, 0.25), (1.0, 0.5)))
    found = messages(tmp_path, faults, count=20)
    frozen = dict.fromkeys(range(3), 0) | dict.fromkeys(range(10, 15), 9)
    expected = [(at(number), frozen.get(number, number)) for number in range(20)]
    assert [line[1:] for line in found[THERMAL_TOPIC]] == expected
    assert [line[2] for line in found[RGB_TOPIC]] == list(range(20))


@pytest.mark.parametrize('freeze', [(2.0, 1.0), (0.0, 0.1), (1.91, 5.0), (0.52, 0.05)])
def test_a_freeze_without_effect_is_refused_and_leaves_no_bag(tmp_path, freeze):
    """After the last image, of the first one alone, and between two; images are 0.1 s apart."""
    faults = Faults(freezes=((1.0, 0.5), freeze))
    with pytest.raises(SartmError, match=rf'freeze {freeze[0]:g}:.*no image; .* at 1\.9 s'):
        messages(tmp_path, faults, count=20)
    assert list(tmp_path.iterdir()) == []


def test_a_freeze_of_the_last_image_and_one_within_another_have_an_effect(tmp_path):
    found = messages(tmp_path, Faults(freezes=((1.9, 1.0), (1.0, 0.5), (1.1, 0.1))), count=20)
    frozen = dict.fromkeys(range(10, 15), 9) | {19: 18}
    assert [line[2] for line in found[THERMAL_TOPIC]] == [frozen.get(n, n) for n in range(20)]


@pytest.mark.parametrize(
    ('faults', 'message'),
    [
        ({'jitter_s': -1}, 'jitter'),
        ({'jitter_s': float('nan')}, 'jitter'),
        ({'drop': 1.0}, 'drop'),
        ({'drop': -0.1}, 'drop'),
        ({'thermal_offset_s': float('inf')}, 'offset'),
        ({'freezes': ((-1.0, 2.0),)}, 'freeze'),
        ({'freezes': ((1.0, 0.0),)}, 'freeze'),
    ],
)
def test_impossible_faults(faults, message):
    with pytest.raises(SartmError, match=message):
        Faults(**faults)


def test_a_freeze_as_typed():
    assert parse_freeze('2:1.5') == (2.0, 1.5)
    for text in ('2', '2:3:4', 'a:1', ''):
        with pytest.raises(SartmError, match='START:DURATION'):
            parse_freeze(text)


@pytest.mark.parametrize(
    ('x', 'encoding'),
    [
        ('thermal', 'mono8'),
        ('depth', '16UC1'),
        ('hha', 'rgb8'),
        ('event', 'rgb8'),
        ('event_voxel3', '32FC3'),
        ('event_voxel5', '32FC5'),
        ('polarization', 'rgb8'),
        ('light_field', 'rgb8'),
        ('light_field_row', '8UC24'),
    ],
)
def test_images_of_any_sensor_come_back_as_they_were(tmp_path, x, encoding):
    modality, rng = MODALITIES[x], np.random.default_rng(0)
    shape = modality.blank(6, 8).shape
    images = [rng.integers(100, 200, shape).astype(modality.dtypes[0]) for _ in range(3)]
    rgb = np.zeros((6, 8, 3), np.uint8)
    frames = [Frame(str(n), {'rgb': rgb, x: image}, None) for n, image in enumerate(images)]
    assert write_bag(frames, tmp_path / 'bag', x_modality=x) == {RGB_TOPIC: 3, f'/{x}/image_raw': 3}
    matcher = make_pair_matcher(Parameters(x_modality=x))
    pairs = list(read_pairs(tmp_path / 'bag', matcher, x_topic=default_x_topic(x)))
    assert [pair.x.encoding for pair in pairs] == [encoding] * 3
    for pair, image in zip(pairs, images, strict=True):
        np.testing.assert_array_equal(to_modality(pair.x, x), image)
    with pytest.raises(SartmError, match=re.escape(f'has no {modality.title} image')):
        write_bag([Frame('a', {'rgb': rgb}, None)], tmp_path / 'none', x_modality=x)


def test_the_verb_takes_another_sensor(tmp_path, capsys, bag_verbs):
    images = {'rgb': np.zeros((6, 8, 3), np.uint8), 'depth': np.full((6, 8), 900, np.uint16)}
    for name, image in images.items():
        (tmp_path / name).mkdir()
        assert cv2.imwrite(str(tmp_path / name / '1.png'), image)
    arguments = ['make-bag', '--rgb', str(tmp_path / 'rgb'), '--out', str(tmp_path / 'bag')]
    assert cli([*arguments, '--x', f'depth={tmp_path / "depth"}']) == 0
    assert '1  /depth/image_raw' in capsys.readouterr().out
    assert cli([*arguments, '--x', 'sonar=somewhere']) == 2
    assert "--x is 'sonar=somewhere'; expected NAME=PATH with one of" in capsys.readouterr().err
