"""Labels from segments: SATIR's procedure, the rankings, and the order of painting."""

from __future__ import annotations

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_model.pseudo_labels.segments import (
    PAPER,
    LabelRules,
    Segment,
    contrast,
    label_image,
    segment_of,
)

SHAPE = (24, 31)
EVERYWHERE = np.ones(SHAPE, bool)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_masks(rng: np.random.Generator, number: int) -> list[np.ndarray]:
    """Rectangles with holes, which overlap."""
    masks = []
    for _ in range(number):
        top, left = rng.integers(0, SHAPE[0] - 4), rng.integers(0, SHAPE[1] - 4)
        mask = np.zeros(SHAPE, bool)
        mask[top : top + rng.integers(3, 12), left : left + rng.integers(3, 12)] = True
        masks.append(mask & (rng.random(SHAPE) < 0.8))
    return masks


def segments_of(masks, scores=None) -> list[Segment]:
    scores = scores or [{} for _ in masks]
    found = [segment_of(mask, score) for mask, score in zip(masks, scores, strict=True)]
    return [segment for segment in found if segment is not None]


@pytest.mark.parametrize('number', [0, 3, 9, 25])
def test_the_paper_s_procedure(rng, number):
    masks = random_masks(rng, number)
    falling = [{'predicted_iou': 1 - 0.01 * i} for i in range(number)]
    shuffled = rng.permutation(number)
    given = segments_of([masks[i] for i in shuffled], [falling[i] for i in shuffled])
    labels = label_image(given, np.zeros(SHAPE, np.float32), PAPER, EVERYWHERE)
    expected = np.zeros(SHAPE, int)
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            for j in range(min(number, 9)):
                if masks[j][y, x]:
                    expected[y, x] = j + 1
    np.testing.assert_array_equal(labels, expected)


def test_the_best_segment_can_be_on_top(rng):
    masks = random_masks(rng, 6)
    scores = [{'stability': float(i)} for i in range(6)]
    rules = LabelRules(ranking='stability', count=4, uncovered='ignore')
    labels = label_image(segments_of(masks, scores), np.zeros(SHAPE, np.float32), rules, EVERYWHERE)
    best_first = masks[::-1][:4]
    for y, x in np.ndindex(SHAPE):
        covering = [rank for rank, mask in enumerate(best_first, start=1) if mask[y, x]]
        assert labels[y, x] == (covering[0] if covering else 255)


def test_nine_segments_are_labelled_unless_told_otherwise():
    masks = [np.arange(SHAPE[1]) // 2 + np.zeros(SHAPE, int) == number for number in range(12)]
    labels = label_image(
        segments_of(masks), np.zeros(SHAPE, np.float32), LabelRules('area'), EVERYWHERE
    )
    np.testing.assert_array_equal(np.unique(labels), range(10))


def test_large_segments_rank_before_small_ones_which_can_be_left_out():
    """The pixels of a segment count, not those of the box around it."""
    diagonal, corner, square = masks = [np.zeros(SHAPE, bool) for _ in range(3)]
    np.fill_diagonal(diagonal[:4, :4], True)
    corner[5:13, 5] = corner[5, 5:12] = True  # 14 pixels in a box of 56
    square[15:19, 15:19] = True
    rules = LabelRules(ranking='area', min_area=5)
    labels = label_image(segments_of(masks), np.zeros(SHAPE, np.float32), rules, EVERYWHERE)
    np.testing.assert_array_equal(labels, np.where(square, 1, np.where(corner, 2, 0)))


def test_contrast_is_between_a_segment_and_its_surroundings(rng):
    image = rng.random(SHAPE).astype(np.float32)
    masks = random_masks(rng, 8)
    contrasts = []
    for mask in masks:
        inside = np.argwhere(mask)
        near = np.array(
            [
                not mask[y, x] and np.abs(inside - (y, x)).max(axis=1).min() <= 5
                for y, x in np.ndindex(SHAPE)
            ]
        ).reshape(SHAPE)
        contrasts.append(abs(image[mask].mean() - image[near].mean()))
    found = [contrast(segment, image, EVERYWHERE) for segment in segments_of(masks)]
    assert found == pytest.approx(contrasts, abs=1e-6)
    best = int(np.argmax(contrasts))
    labels = label_image(segments_of(masks), image, LabelRules('contrast', count=1), EVERYWHERE)
    np.testing.assert_array_equal(labels == 1, masks[best])


def test_what_the_sensor_does_not_see_has_no_label(rng):
    valid = rng.random(SHAPE) < 0.5
    everything = segments_of([np.ones(SHAPE, bool)])
    labels = label_image(everything, np.zeros(SHAPE, np.float32), LabelRules('contrast'), valid)
    np.testing.assert_array_equal(labels, np.where(valid, 1, 255))


def test_what_the_sensor_does_not_see_takes_no_rank(rng):
    """The largest segment sees nothing, and of the next one less is left than of the third."""
    masks = [np.zeros(SHAPE, bool) for _ in range(4)]
    masks[0][:, :10] = True
    masks[1][:, 8:18] = True
    masks[2][4:20, 20:26] = True
    masks[3][10:14, 27:30] = True
    valid = np.ones(SHAPE, bool)
    valid[:, :16] = False
    labels = label_image(
        segments_of(masks), np.zeros(SHAPE, np.float32), LabelRules('area', min_area=13), valid
    )
    expected = np.where(valid, 0, 255)
    expected[masks[2]] = 1
    expected[:, 16:18] = 2
    np.testing.assert_array_equal(labels, expected)


def test_contrast_is_of_what_the_sensor_sees():
    """Two squares on an even ground: the fainter one beside a border without values."""
    image = np.full(SHAPE, 100, np.float32)
    masks = [np.zeros(SHAPE, bool) for _ in range(2)]
    masks[0][5:9, 8:12], masks[1][14:18, 20:24] = True, True
    image[masks[0]], image[masks[1]] = 110, 120
    valid = np.ones(SHAPE, bool)
    valid[:, :8] = False
    image[~valid] = 0
    labels = label_image(segments_of(masks), image, LabelRules('contrast'), valid)
    expected = np.where(valid, 0, 255)
    expected[masks[1]] = 1
    expected[masks[0]] = 2
    np.testing.assert_array_equal(labels, expected)


def test_a_ranking_needs_its_score():
    segments = segments_of([np.ones(SHAPE, bool)])
    with pytest.raises(SartmError, match='a segment has no predicted_iou; rank'):
        label_image(segments, np.zeros(SHAPE, np.float32), PAPER, EVERYWHERE)
    with pytest.raises(SartmError, match='expected 1 to 254'):
        LabelRules(count=255)
    with pytest.raises(SartmError, match="'size'; expected one of predicted_iou, area"):
        LabelRules(ranking='size')


@pytest.mark.parametrize('count', [20, 254])
def test_the_classes_have_colours_of_their_own(count):
    space = LabelRules(count=count).label_space()
    assert len(space) == count + 1
    assert space.background_id == 0
    assert len(set(space.colors)) == count + 1
