"""Corrupted frames: what changes, by how much, and that every run gives the same images."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest
from frame_list import FrameList

from sartm_model.data.file_frames import FileFrames, FrameFiles
from sartm_model.data.frame import Condition, Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset, corruption_names
from sartm_model.labels import MFNET

HEIGHT, WIDTH = 90, 240
DEPTHS = {np.uint8: 255, np.uint16: 20_000}
NAMES = [name for name, (of, _) in corruption_names().items() if of in ('rgb', 'thermal')]


def scenes(count=3, depth=np.uint8):
    """Smooth images with something in them, all different."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for index in range(count):
        waves = 0.5 + 0.25 * np.sin(x / rng.uniform(3, 9)) + 0.2 * np.cos(y / rng.uniform(3, 9))
        rgb = (waves[..., None] * (120, 160, 200)).astype(np.uint8)
        thermal = (waves * 0.7 * DEPTHS[depth]).astype(depth)
        labels = (waves * 9).astype(np.uint8)
        condition = get_args(Condition)[index % 2]
        frames.append(Frame(f'{index:05d}', {'rgb': rgb, 'thermal': thermal}, labels, condition))
    return FrameList(frames)


def corrupted(dataset, name, severity):
    return list(CorruptedDataset(dataset, corruption=name, severity=severity))


def change(before, after, name):
    """Mean change of a pixel of the corrupted modality."""
    part = name.partition('_')[0]
    return np.abs(getattr(after, part).astype(float) - getattr(before, part)).mean()


@pytest.mark.parametrize('depth', DEPTHS)
@pytest.mark.parametrize('name', NAMES)
def test_one_modality_changes_the_same_way_in_every_run(name, depth):
    dataset = scenes(4, depth)
    before = [replace(f, images={name: x.copy() for name, x in f.images.items()}) for f in dataset]
    once, again = (corrupted(dataset, name, 5) for _ in range(2))
    for old, given, new, same in zip(before, dataset, once, again, strict=True):
        for part in ('rgb', 'thermal'):
            image = getattr(new, part)
            assert image.dtype == getattr(old, part).dtype
            assert image.shape == getattr(old, part).shape
            np.testing.assert_array_equal(image, getattr(same, part))
            np.testing.assert_array_equal(getattr(given, part), getattr(old, part))
            if not name.startswith(part):
                np.testing.assert_array_equal(image, getattr(old, part))
        assert (new.name, new.condition) == (old.name, old.condition)
        np.testing.assert_array_equal(new.labels, old.labels)
    changes = [change(old, new, name) for old, new in zip(before, once, strict=True)]
    assert np.count_nonzero(changes) >= 3  # the first frame has none before it to freeze at


@pytest.mark.parametrize('name', ['thermal_shift', 'thermal_noise', 'rgb_dark', 'rgb_glare',
                                  'rgb_noise'])  # fmt: skip
def test_a_higher_severity_changes_more(name):
    dataset = scenes(4)
    mean = [
        np.mean([change(*pair, name) for pair in zip(dataset, corrupted(dataset, name, s),
                                                     strict=True)])
        for s in (1, 2, 3, 4, 5)
    ]  # fmt: skip
    assert (np.diff([0, *mean]) > 0).all(), mean


@pytest.mark.parametrize(('severity', 'percent'), [(1, 0.5), (3, 2), (5, 5)])
def test_shift_moves_every_pixel_and_repeats_the_border(severity, percent):
    y, x = np.mgrid[:100, :300]
    place = (y * 300 + x).astype(np.uint16)  # each value says where it was
    dataset = FrameList([Frame(str(n), {'thermal': place}) for n in range(6)])
    seen = set()
    for new in corrupted(dataset, 'thermal_shift', severity):
        middle = int(new.thermal[50, 150])
        right, down = 150 - middle % 300, 50 - middle // 300
        seen.add((right, down))
        for row, column in np.random.default_rng(0).integers(0, (100, 300), (200, 2)):
            from_row, from_column = min(max(row - down, 0), 99), min(max(column - right, 0), 299)
            assert new.thermal[row, column] == place[from_row, from_column]
        wanted = percent / 100 * 300
        assert wanted <= np.hypot(right, down) <= wanted + np.sqrt(2)
    assert len(seen) > 2


@pytest.mark.parametrize('depth', DEPTHS)
def test_thermal_noise_has_the_stated_deviation_with_a_pattern_of_columns_and_rows(depth):
    y = np.linspace(0.3, 0.7, 400)[:, None] * DEPTHS[depth]
    thermal = np.tile(y, (1, 500)).astype(depth)
    (new,) = corrupted(FrameList([Frame('a', {'thermal': thermal})]), 'thermal_noise', 2)
    noise = new.thermal.astype(float) - thermal
    span = np.subtract(*np.percentile(thermal, (99, 1)))
    assert noise.std() == pytest.approx(0.06 * span, rel=0.05)
    # As in training samples, a column and a row have half the deviation that a pixel has.
    for axis in (0, 1):
        assert noise.mean(axis=axis).std() == pytest.approx(0.06 * span / np.sqrt(6), rel=0.12)


def test_rgb_noise_has_the_stated_deviation():
    grey = np.full((200, 200, 3), 128, np.uint8)
    (new,) = corrupted(FrameList([Frame('a', {'rgb': grey})]), 'rgb_noise', 3)
    noise = new.rgb.astype(float) - 128
    assert noise.std() == pytest.approx(0.12 * 255, rel=0.03)
    assert abs(noise.mean()) < 1
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize('severity', [1, 3, 5])
def test_freeze_shows_an_earlier_image(severity):
    dataset = scenes(7)
    for index, new in enumerate(corrupted(dataset, 'thermal_freeze', severity)):
        earlier = dataset[max(index - severity, 0)]
        np.testing.assert_array_equal(new.thermal, earlier.thermal)


def test_blackout_affects_more_frames_at_each_severity_and_all_at_the_last():
    dataset = scenes(60)
    before = set()
    for severity in (1, 2, 3, 4, 5):
        gone = set()
        for old, new in zip(dataset, corrupted(dataset, 'thermal_blackout', severity), strict=True):
            if (new.thermal == new.thermal[0, 0]).all():
                gone.add(new.name)
                assert abs(float(new.thermal[0, 0]) - old.thermal.mean()) <= 0.5
            else:
                np.testing.assert_array_equal(new.thermal, old.thermal)
        assert before <= gone
        assert len(gone) / 60 == pytest.approx(severity / 5, abs=0.2)
        before = gone
    assert len(before) == 60


def test_dark_by_hand():
    """A quarter of the light is 0.25^(1/2.2) = 0.5325 of the counts."""
    rgb = np.array([[[0, 10, 100], [200, 255, 1]]], np.uint8)
    (new,) = corrupted(FrameList([Frame('a', {'rgb': rgb})]), 'rgb_dark', 2)
    assert new.rgb.tolist() == [[[0, 5, 53], [107, 136, 1]]]


def test_glare_adds_light_everywhere_and_saturates_some_pixels():
    dark = np.full((120, 160, 3), 20, np.uint8)
    (new,) = corrupted(FrameList([Frame('a', {'rgb': dark})]), 'rgb_glare', 3)
    assert new.rgb.min() >= 20 + 25
    assert 0.003 < (new.rgb > 230).mean() < 0.1


@pytest.mark.parametrize('modality', ['rgb', 'thermal', 'both'])
def test_a_modality_is_left_out(modality):
    for frame in CorruptedDataset(scenes(), modality=modality):
        assert (frame.rgb is None) == (modality == 'thermal')
        assert (frame.thermal is None) == (modality == 'rgb')
        assert frame.labels is not None


def test_a_pair_is_chosen_of_the_images_of_more_sensors():
    frames = [
        Frame(f.name, {**f.images, 'depth': np.full((HEIGHT, WIDTH), 900, np.uint16)}, f.labels)
        for f in scenes()
    ]
    for frame in CorruptedDataset(FrameList(frames), modality='depth,rgb'):
        assert list(frame.images) == ['rgb', 'depth']
    without = CorruptedDataset(scenes(), modality='rgb,depth')
    with pytest.raises(SartmError, match=r"frame 00000 .* 'rgb,depth'; .* rgb, thermal$"):
        without[0]


@pytest.mark.parametrize(
    ('settings', 'fault'),
    [
        ({'corruption': 'fog', 'severity': 1}, "'fog'; expected one of rgb_dark"),
        ({'corruption': 'rgb_dark'}, 'no severity is given.*expected 1 to 5'),
        ({'corruption': 'rgb_dark', 'severity': 0}, 'severity 0.*expected 1 to 5'),
        ({'corruption': 'rgb_dark', 'severity': 6}, 'severity 6'),
        ({'severity': 2}, 'severity 2 is given without a corruption'),
        ({'modality': 'sonar'}, "'sonar'; expected both"),
        ({'modality': 'rgb,sonar'}, "'rgb,sonar'; expected both"),
        ({'modality': 'rgb', 'corruption': 'thermal_noise', 'severity': 1}, 'leaves out'),
    ],
)
def test_settings_that_cannot_be_used(settings, fault):
    with pytest.raises(SartmError, match=fault):
        CorruptedDataset(scenes(), **settings)


@pytest.mark.parametrize('name', NAMES)
def test_a_frame_without_the_modality_is_named(name):
    with pytest.raises(SartmError, match=r'frame a has no (RGB|thermal) image'):
        corrupted(FrameList([Frame('a', {})]), name, 1)


@pytest.mark.parametrize('modality', ['event', 'rgb,event'])
def test_a_missing_modality_is_told_with_all_that_the_data_set_has(tmp_path, modality):
    files = {}
    for part, channels in (('rgb', 3), ('thermal', 1)):
        files[part] = tmp_path / f'{part}.png'
        assert cv2.imwrite(str(files[part]), np.zeros((8, 8, channels), np.uint8))
    dataset = CorruptedDataset(
        FileFrames({'a': FrameFiles(files)}, MFNET, aligned=True), modality=modality
    )
    named = f"frame a has no images of modality '{modality}'; .* of rgb, thermal$"
    for frames in (dataset, dataset.with_modalities(modality.split(','))):
        with pytest.raises(SartmError, match=named):
            frames[0]
