"""Boundary F1, against loops over pairs of outline pixels and cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sartm_model.evaluation.boundary import BoundaryCounts, outline
from sartm_model.labels import LabelSpace

SPACE = LabelSpace('test', ('nothing', 'box', 'ball', 'bell'), ((0, 0, 0),) * 4, background_id=0)


def figures_of(*images):
    counts = BoundaryCounts(len(SPACE))
    for labels, truth in images:
        counts.update(labels, truth)
    return counts.compute(SPACE)


def box(top, left, height, width, shape=(480, 640), label=1):
    ids = np.zeros(shape, np.uint8)
    ids[top : top + height, left : left + width] = label
    return ids


def blobs(rng, shape):
    """Overlapping boxes of all classes, and some pixels without a label."""
    ids = np.zeros(shape, np.uint8)
    for label in (1, 2, 3, 2, 1):
        top, left = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 12)
        ids[top : top + rng.integers(4, 40), left : left + rng.integers(4, 40)] = label
    return ids


def outline_by_loops(ids, counted, label):
    height, width = ids.shape
    found = []
    for y in range(height):
        for x in range(width):
            if ids[y, x] != label or not counted[y, x]:
                continue
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= b < height and 0 <= a < width
                if inside and counted[b, a] and ids[b, a] != label:
                    found.append((y, x))
                    break
    return np.array(found, float).reshape(-1, 2)


def near(these, those, reach):
    """Count the points `these` that have a point of `those` within `reach`."""
    if not len(these) or not len(those):
        return 0
    gaps = these[:, None] - those[None]
    return int((np.sqrt((gaps**2).sum(-1)).min(axis=1) <= reach).sum())


@pytest.mark.parametrize('seed', range(3))
def test_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    shape = (120, 160)  # 0.75 % of 200 pixels is 1.5: all eight neighbours, and no others
    counts = BoundaryCounts(len(SPACE))
    wanted = np.zeros((4, len(SPACE)), int)
    for _ in range(2):
        truth = blobs(rng, shape)
        labels = np.roll(truth, rng.integers(-2, 3, 2), axis=(0, 1))
        labels[20:40, 60:80] = rng.integers(0, 4)
        labels[rng.random(shape) < 0.01] = 255
        truth[rng.random(shape) < 0.02] = 255
        truth[50:60] = 255
        counts.update(labels, truth)
        counted = truth != 255
        for label in range(len(SPACE)):
            mine = outline_by_loops(labels, counted, label)
            theirs = outline_by_loops(truth, counted, label)
            wanted[:, label] += (
                len(mine), near(mine, theirs, 1.5), len(theirs), near(theirs, mine, 1.5)
            )  # fmt: skip
    found = [counts.predicted, counts.correct, counts.true, counts.found]
    np.testing.assert_array_equal(found, wanted)
    precision, recall = wanted[1] / wanted[0], wanted[3] / wanted[2]
    f1 = 100 * 2 * precision * recall / (precision + recall)
    figures = counts.compute(SPACE)
    assert list(figures['per_class_boundary_f1'].values()) == pytest.approx(f1.tolist())
    assert figures['boundary_f1'] == pytest.approx(f1[1:].mean())


@pytest.mark.parametrize(('step', 'f1'), [(0, 100.0), (6, 100.0), (7, None)])
def test_the_tolerance_is_six_pixels_of_480x640(step, f1):
    """If a box is moved sideways by more, only the ends of its long sides still match."""
    found = figures_of((box(100, 100 + step, 60, 4), box(100, 100, 60, 4)))['boundary_f1']
    assert found == f1 if f1 is not None else 0 < found < 60


def test_half_of_the_outlines_found_by_hand():
    """One of two equal boxes is found and nothing else predicted: P = 1, R = 1/2, F1 = 2/3."""
    truth = box(50, 50, 20, 20) + box(300, 300, 20, 20)
    assert figures_of((box(50, 50, 20, 20), truth))['boundary_f1'] == pytest.approx(200 / 3)


def test_absent_and_empty_classes():
    figures = figures_of((box(50, 50, 20, 20), box(50, 50, 20, 20, label=2)))
    # class 1 is only predicted, class 2 is only true, class 3 is nowhere
    assert list(figures['per_class_boundary_f1'].values()) == [100.0, 0.0, 0.0, None]
    assert figures['boundary_f1'] == 0.0
    blank = np.zeros((480, 640), np.uint8)
    assert figures_of((blank, blank)) == {
        'boundary_f1': None,
        'per_class_boundary_f1': dict.fromkeys(SPACE.classes),
    }


def test_the_mean_leaves_out_the_background_of_the_label_space():
    """Of class 0 and 1 the F1 is 100 and 0 here, and class 2 has no outline in the prediction."""
    images = (box(50, 50, 20, 20), box(50, 50, 20, 20, label=2))
    counts = BoundaryCounts(len(SPACE))
    counts.update(*images)
    for background_id, mean in ((0, 0.0), (1, 50.0), (None, pytest.approx(100 / 3))):
        own = replace(SPACE, background_id=background_id)
        assert counts.compute(own)['boundary_f1'] == mean


def test_no_outline_along_the_border_of_the_image_or_of_what_is_labelled():
    ids = np.ones((4, 6), np.uint8)
    assert not outline(ids, np.ones((4, 6), bool)).any()
    counted = np.ones((4, 6), bool)
    counted[:, 3] = False
    ids[:, 3:] = 2
    assert not outline(ids, counted).any()


def test_what_is_predicted_where_nothing_is_labelled_does_not_count():
    truth = box(50, 50, 20, 20)
    truth[200:300, 200:300] = 255
    labels = box(50, 50, 20, 20) + box(220, 220, 30, 30, label=2)
    figures = figures_of((labels, truth))
    assert figures['per_class_boundary_f1'] == {
        'nothing': 100.0, 'box': 100.0, 'ball': None, 'bell': None
    }  # fmt: skip


def test_counts_are_summed_over_all_images():
    """40 outline pixels found and 4 missed give 2 * 40 / (40 + 44), not the mean of 1 and 0."""
    rows = np.zeros((480, 640), np.uint8)
    rows[0, 100:140] = 1
    dot = box(470, 20, 2, 2)
    counts = BoundaryCounts(len(SPACE))
    counts.update(rows, rows)
    other = BoundaryCounts(len(SPACE))
    other.update(np.zeros_like(dot), dot)
    counts.merge(other)
    assert counts.true[1] == 44
    found = counts.compute(SPACE)['per_class_boundary_f1']['box']
    assert found == pytest.approx(100 * 2 * 40 / 84)
