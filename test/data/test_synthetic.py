"""The procedural scenes: determined by their seed, of any size, and in need of both modalities."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from sartm_model.config import SourceConfig
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.data.sources import open_source
from sartm_model.data.synthetic import SPLITS, SyntheticScenes, render, render_sequence
from sartm_model.data.synthetic.cameras import GIVEN
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.labels import MFNET
from sartm_model.modalities import MODALITIES


def same(one: Frame, other: Frame) -> bool:
    return all(
        np.array_equal(getattr(one, part), getattr(other, part))
        for part in ('rgb', 'thermal', 'labels')
    )


@pytest.fixture(scope='module')
def night_scenes() -> list[Frame]:
    return [render(seed, 240, 320, condition='night') for seed in range(160)]


def test_a_seed_gives_one_scene():
    first, again, other = render(7, 120, 160), render(7, 120, 160), render(8, 120, 160)
    assert same(first, again)
    assert (first.name, first.condition) == (again.name, again.condition)
    assert not same(first, other)


def test_rendering_others_in_between_changes_nothing():
    scenes = SyntheticScenes('val', 6, 96, 128)
    forward = [scenes[index] for index in range(6)]
    for index in (5, 0, 3):
        assert same(scenes[index], forward[index])
        assert scenes[index].name == scenes.names[index]


@pytest.mark.parametrize(
    ('height', 'width'), [(480, 640), (720, 1280), (97, 131), (16, 16), (333, 64), (33, 700)]
)
def test_any_size(height, width):
    for seed in range(3):
        frame = render(seed, height, width)
        assert frame.rgb.shape == (height, width, 3)
        assert frame.thermal.shape == frame.labels.shape == (height, width)
        assert frame.rgb.dtype == frame.thermal.dtype == frame.labels.dtype == np.uint8
        assert frame.labels.max() < len(MFNET)


def test_a_size_shows_the_same_scene_as_another():
    agreements = []
    for seed in range(20):
        small, large = render(seed, 120, 160).labels, render(seed, 480, 640).labels
        shrunk = cv2.resize(large, (160, 120), interpolation=cv2.INTER_NEAREST)
        things = (small > 0) | (shrunk > 0)
        agreements.append(float((small == shrunk)[things].mean()) if things.any() else 1.0)
    assert np.median(agreements) > 0.75


def test_near_scenes_have_large_objects_that_the_image_cuts_off():
    def has_large_person(split: str, index: int) -> bool:
        person = SyntheticScenes(split, 40, 120, 160)[index].labels == MFNET.classes.index('person')
        return person.mean() > 0.05 and bool(person[-1].any() or person[:, [0, -1]].any())

    assert sum(has_large_person('train_near', index) for index in range(40)) >= 8
    assert not any(has_large_person('train', index) for index in range(40))


def test_near_objects_are_added_to_a_scene():
    """They hide a part of what is there without them and change nothing else of its labels."""
    seen = set()
    for seed in range(20):
        plain, near = (render(seed, 120, 160, near=near).labels for near in (False, True))
        seen |= set(np.unique(near[near != plain]))
    classes = {'car', 'person', 'bike', 'car_stop', 'color_cone'}
    assert {MFNET.classes[label] for label in seen} <= classes


def test_splits_share_no_scene():
    names = {split: set(SyntheticScenes(split, 50).names) for split in SPLITS}
    for one, other in itertools.combinations(names, 2):
        assert not names[one] & names[other]
        for index in range(5):
            pair = (SyntheticScenes(split, 5, 64, 96)[index] for split in (one, other))
            assert not same(*pair)
    assert len(names['train']) == 50
    assert not same(render(1, 64, 96), SyntheticScenes('val', 1, 64, 96)[0])


def test_condition_can_be_asked_for_and_most_scenes_are_at_night():
    drawn = [render(seed, 48, 64).condition for seed in range(48)]
    assert 26 <= drawn.count('night') <= 46
    assert drawn.count('night') + drawn.count('day') == 48
    night, day = (
        [render(seed, 48, 64, condition=condition) for seed in range(10)]
        for condition in ('night', 'day')
    )
    assert {frame.condition for frame in night} == {'night'}
    assert {frame.condition for frame in day} == {'day'}
    assert np.mean([f.rgb for f in day]) > 2 * np.mean([f.rgb for f in night])


def test_every_class_occurs_often(night_scenes):
    for label, name in enumerate(MFNET.classes):
        share = np.mean([(frame.labels == label).any() for frame in night_scenes])
        assert share > 0.1, f'{name} is in {share:.0%} of the scenes'


def test_people_are_warm(night_scenes):
    differences = [
        frame.thermal[frame.labels == 2].mean() - frame.thermal[frame.labels == 0].mean()
        for frame in night_scenes
        if (frame.labels == 2).any()
    ]
    assert np.median(differences) > 20


def contrasts(frame: Frame, label: int) -> list[tuple[float, float]]:
    """By how much each piece of a class differs from a ring around it: in RGB and in thermal.

    The largest difference over channels and over the inner parts counts, so that a thing of two
    tones whose mean is that of the road still counts as visible.
    """
    mask = (frame.labels == label).astype(np.uint8)
    found = []
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    for piece in range(1, count):
        left, top, width, height, area = stats[piece]
        if area < 60:
            continue
        window = np.s_[max(0, top - 8) : top + height + 8, max(0, left - 8) : left + width + 8]
        inside = (pieces[window] == piece).astype(np.uint8)
        near = cv2.dilate(inside, np.ones((5, 5)))
        ring = (cv2.dilate(inside, np.ones((13, 13))) > near) & (frame.labels[window] == 0)
        core = inside > 0
        if ring.sum() < 30:
            continue
        images = (frame.rgb[window].astype(float), frame.thermal[window][..., None].astype(float))
        found.append(tuple(_contrast(image, core, ring) for image in images))
    return found


def _contrast(image: np.ndarray, core: np.ndarray, ring: np.ndarray) -> float:
    smooth = cv2.blur(image, (3, 3)).reshape(*core.shape, -1)
    spread = np.percentile(smooth[core], [10, 50, 90], axis=0)
    return float(np.abs(spread - np.median(smooth[ring], axis=0)).max())


@pytest.mark.parametrize('label', range(1, len(MFNET)))
def test_each_class_is_at_times_seen_in_one_modality_alone(night_scenes, label):
    pairs = np.array([pair for frame in night_scenes for pair in contrasts(frame, label)])
    rgb, thermal = pairs.T
    rgb_alone = int(((rgb > 12) & (thermal < 6)).sum())
    thermal_alone = int(((thermal > 8) & (rgb < 8)).sum())
    both = int(((rgb > 12) & (thermal > 8)).sum())
    few = f'of {len(pairs)}: RGB {rgb_alone}, thermal {thermal_alone}, both {both}'
    assert rgb_alone >= 2, few
    assert thermal_alone >= 2, few
    assert both >= 2, few


@pytest.mark.parametrize('seed', [1, 4, 9, 12])
def test_a_sequence_is_coherent(seed):
    frames = list(render_sequence(seed, 8, 240, 320, condition='night'))
    assert len({frame.name for frame in frames}) == 8
    overlaps, still = [], 0
    for one, other in itertools.pairwise(frames):
        union = ((one.labels > 0) | (other.labels > 0)).sum()
        agree = ((one.labels == other.labels) & (one.labels > 0)).sum()
        overlaps.append(agree / union if union else 1.0)
        still += np.array_equal(one.labels, other.labels)
        assert not np.array_equal(one.rgb, other.rgb)
        steps = np.abs(one.thermal.astype(float) - other.thermal)
        assert np.median(steps) < 6
    assert np.mean(overlaps) > 0.5
    first, last = frames[0].labels, frames[-1].labels
    assert still < 7 or not first.any()
    assert not np.array_equal(first, last) or not first.any()


def test_a_sequence_is_determined_by_its_seed():
    pairs = zip(render_sequence(3, 3, 96, 128), render_sequence(3, 3, 96, 128), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_bad_requests_are_named():
    with pytest.raises(SartmError, match=r"no split 'trian'.*train, val, test"):
        SyntheticScenes('trian')
    with pytest.raises(SartmError, match='0 synthetic scenes'):
        SyntheticScenes('train', 0)
    with pytest.raises(SartmError, match='8x100 pixels is too small'):
        render(0, 100, 8)
    with pytest.raises(IndexError):
        SyntheticScenes('train', 3)[3]


@pytest.mark.skipif(cv2.__version__[0] != '5', reason='the numbers are those of OpenCV 5')
@pytest.mark.parametrize(
    ('seed', 'condition', 'rgb', 'thermal', 'labels'),
    [
        (
            0,
            'day',
            [[86.57, 143.16, 122.98], [66.17, 69.85, 66.66]],
            [[80.07, 58.58, 68.09], [78.89, 78.27, 74.78]],
            [13203, 555, 66, 0, 0, 0, 0, 0, 0],
        ),
        (
            1,
            'night',
            [[26.14, 6.84, 7.9], [14.29, 11.08, 16.12]],
            [[77.02, 43.12, 65.9], [75.61, 74.69, 74.09]],
            [12226, 628, 176, 89, 155, 420, 130, 0, 0],
        ),
    ],
)
def test_a_seed_gives_the_scene_that_it_has_always_given(seed, condition, rgb, thermal, labels):
    """The shipped network and the published figures are of these scenes.

    Means of blocks are compared, because the last bit of a pixel depends on the processor.
    """
    frame = render(seed, 96, 144, condition=condition)
    for image, expected in ((frame.rgb.mean(2), rgb), (frame.thermal, thermal)):
        blocks = image.reshape(2, 48, 3, 48).mean((1, 3))
        np.testing.assert_allclose(blocks, expected, atol=0.02)
    assert np.bincount(frame.labels.ravel(), minlength=9).tolist() == labels


def test_an_image_does_not_depend_on_which_others_are_rendered():
    every = render(1, 64, 96, modalities=GIVEN)
    assert tuple(every.images) == tuple(name for name in MODALITIES if name in GIVEN)
    pair = render(1, 64, 96)
    assert list(pair.images) == ['rgb', 'thermal']
    assert same(pair, every)
    for name in GIVEN:
        alone = render(1, 64, 96, modalities=[name])
        assert list(alone.images) == [name]
        MODALITIES[name].check(alone.images[name])
        assert alone.images[name].shape[:2] == (64, 96)
        assert np.array_equal(alone.images[name], every.images[name])
        assert np.array_equal(alone.labels, every.labels)


@pytest.mark.parametrize('size', [(16, 16), (133, 64), (33, 300)])
def test_every_modality_has_any_size(size):
    frame = render(0, *size, modalities=GIVEN)
    assert {image.shape[:2] for image in frame.images.values()} == {size}


def test_a_modality_that_the_scenes_do_not_have_is_named():
    expected = 'the synthetic scenes have rgb, thermal, depth, event, .*; rgb, lidar was asked for'
    scenes = SyntheticScenes('test', 2, 48, 64)
    for ask in (
        lambda: render(0, 48, 64, modalities=['rgb', 'lidar']),
        lambda: scenes.with_modalities(['rgb', 'lidar']),
        lambda: open_source(SourceConfig('synthetic'), MFNET, ('rgb', 'lidar')),
    ):
        with pytest.raises(SartmError, match=expected):
            ask()
    with pytest.raises(SartmError, match='no modality was asked for'):
        render(0, 48, 64, modalities=[])


def test_a_source_of_a_run_renders_the_images_that_the_run_needs():
    frames = open_source(SourceConfig('synthetic', frames=2), MFNET, ('rgb', 'depth'))
    assert list(frames[1].images) == ['rgb', 'depth']
    assert frames[1].name == SyntheticScenes('train').names[1]


def test_an_evaluation_renders_the_images_that_it_needs():
    scenes = CorruptedDataset(
        SyntheticScenes('test', 2, 48, 64),
        modality='rgb,depth',
        corruption='depth_blackout',
        severity=5,
    )
    frame = scenes.with_modalities(('rgb', 'depth'))[0]
    assert list(frame.images) == ['rgb', 'depth']
    assert not frame.images['depth'].any()


def test_opened_by_name_without_a_root():
    scenes = open_dataset('synthetic', None, 'test')
    assert len(scenes) == 100
    assert scenes.label_space is MFNET
    assert scenes[0].labels.shape == (480, 640)
