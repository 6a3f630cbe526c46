"""The confusion matrix and its means, against pixel-by-pixel loops and cases computed by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from frame_list import FrameList

from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, condition_groups, evaluate
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.utils.torchvision_patch import patch_torchvision_ops


def space(classes: int) -> LabelSpace:
    names = tuple(f'class{label}' for label in range(classes))
    return LabelSpace(
        'test', names, tuple((label, 0, 0) for label in range(classes)), background_id=0
    )


def figures_of(labels, truth, classes):
    confusion = ConfusionMatrix(classes)
    confusion.update(np.array(labels, np.uint8), np.array(truth, np.uint8))
    return confusion.compute(space(classes))


@pytest.mark.parametrize(('background_id', 'expected'), [(0, 75.0), (2, 62.5), (None, None)])
def test_the_foreground_leaves_out_the_background_of_the_label_space(background_id, expected):
    """Classes 0, 1 and 2 have an IoU of 1/4, 1 and 1/2."""
    label_space = LabelSpace('own', ('a', 'b', 'c'), ((0, 0, 0),) * 3, background_id)
    confusion = ConfusionMatrix(3)
    confusion.counts[:] = [[1, 0, 0, 1], [0, 5, 0, 0], [2, 0, 2, 0]]
    figures = confusion.compute(label_space)
    ious = [100 * 1 / (1 + 1 + 2), 100.0, 100 * 2 / (2 + 2)]
    assert list(figures['per_class_iou'].values()) == pytest.approx(ious)
    assert figures['miou_foreground'] == (None if expected is None else pytest.approx(expected))


def by_loops(images, classes):
    """IoU per class (None: absent) and pixel accuracy in percent, counted pixel by pixel."""
    hit, said, true = [0] * classes, [0] * classes, [0] * classes
    for labels, truth in images:
        for predicted, actual in zip(labels.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if actual == 255:
                continue
            true[actual] += 1
            if predicted != 255:
                said[predicted] += 1
            hit[actual] += predicted == actual
    unions = [t + s - h for t, s, h in zip(true, said, hit, strict=True)]
    ious = [100 * h / u if u else None for h, u in zip(hit, unions, strict=True)]
    return ious, 100 * sum(hit) / sum(true)


@pytest.mark.parametrize(('classes', 'seed'), [(2, 0), (5, 1), (9, 2), (15, 3), (255, 4)])
def test_agrees_with_loops_over_the_pixels(classes, seed):
    rng = np.random.default_rng(seed)
    confusion, images = ConfusionMatrix(classes), []
    for _ in range(3):
        truth = rng.integers(0, classes, (13, 17)).astype(np.uint8)
        labels = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, (13, 17)))
        truth[rng.random(truth.shape) < 0.1] = 255
        labels[rng.random(truth.shape) < 0.05] = 255
        images.append((labels, truth))
        confusion.update(labels, truth)
    ious, accuracy = by_loops(images, classes)
    figures = confusion.compute(space(classes))
    assert list(figures['per_class_iou'].values()) == [
        None if iou is None else pytest.approx(iou) for iou in ious
    ]
    present = [iou for iou in ious if iou is not None]
    assert figures['miou'] == pytest.approx(sum(present) / classes)
    assert figures['miou_present'] == pytest.approx(sum(present) / len(present))
    foreground = sum(iou or 0 for iou in ious[1:]) / (classes - 1)
    assert figures['miou_foreground'] == pytest.approx(foreground)
    assert figures['pixel_accuracy'] == pytest.approx(accuracy)
    assert figures['frames'] == 3


@pytest.mark.parametrize(('classes', 'seed'), [(2, 0), (9, 1), (15, 2)])
def test_agrees_with_torchmetrics(classes, seed):
    patch_torchvision_ops()
    from torchmetrics import classification

    rng = np.random.default_rng(seed)
    confusion, ours = ConfusionMatrix(classes), {'num_classes': classes, 'ignore_index': 255}
    matrix = classification.MulticlassConfusionMatrix(**ours)
    iou = classification.MulticlassJaccardIndex(**ours, average='none')
    accuracy = classification.MulticlassAccuracy(**ours, average='micro')
    for _ in range(3):
        truth = rng.integers(0, classes, (30, 40)).astype(np.uint8)
        labels = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, (30, 40)))
        truth[rng.random(truth.shape) < 0.1] = 255
        confusion.update(labels, truth)
        for theirs in (matrix, iou, accuracy):
            theirs.update(torch.from_numpy(labels)[None], torch.from_numpy(truth.astype(int))[None])
    figures = confusion.compute(space(classes))
    assert figures['confusion'] == matrix.compute().tolist()
    by_class = (100 * iou.compute()).tolist()
    assert list(figures['per_class_iou'].values()) == pytest.approx(by_class, rel=1e-5)
    assert figures['miou'] == pytest.approx(sum(by_class) / classes, rel=1e-5)
    assert figures['pixel_accuracy'] == pytest.approx(100 * accuracy.compute().item(), rel=1e-5)


def test_by_hand():
    # class 0: 2 hits, 1 missed, 0 false; class 1: 1 hit, 0 missed, 1 false; class 2 is nowhere
    figures = figures_of([[0, 0, 1, 1]], [[0, 0, 0, 1]], 3)
    assert figures['per_class_iou'] == {
        'class0': pytest.approx(200 / 3),
        'class1': pytest.approx(50.0),
        'class2': None,
    }
    assert figures['miou'] == pytest.approx((200 / 3 + 50) / 3)
    assert figures['miou_present'] == pytest.approx((200 / 3 + 50) / 2)
    assert figures['miou_foreground'] == pytest.approx(25.0)
    assert figures['pixel_accuracy'] == pytest.approx(75.0)
    assert figures['confusion'] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert 'unknown' not in figures


def test_a_class_that_is_only_predicted_is_present_with_zero():
    figures = figures_of([[0, 2]], [[0, 0]], 3)
    assert figures['per_class_iou'] == {'class0': 50.0, 'class1': None, 'class2': 0.0}
    assert figures['miou_present'] == pytest.approx(25.0)


def test_unlabelled_pixels_are_left_out_whatever_is_predicted_there():
    figures = figures_of([[0, 1, 2, 255]], [[0, 255, 255, 255]], 3)
    assert figures['confusion'] == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert figures['pixel_accuracy'] == 100.0
    assert figures['per_class_iou'] == {'class0': 100.0, 'class1': None, 'class2': None}


def test_an_unknown_prediction_is_a_miss_and_no_false_alarm():
    figures = figures_of([[255, 0, 1, 1]], [[0, 0, 1, 1]], 2)
    assert figures['per_class_iou'] == {'class0': 50.0, 'class1': 100.0}
    assert figures['pixel_accuracy'] == 75.0
    assert figures['confusion'] == [[1, 0], [0, 2]]
    assert figures['unknown'] == [1, 0]


def test_nothing_counted():
    figures = ConfusionMatrix(2).compute(space(2))
    assert (figures['miou'], figures['frames']) == (0.0, 0)
    assert figures['miou_present'] is None
    assert figures['pixel_accuracy'] is None
    assert figures['per_class_iou'] == {'class0': None, 'class1': None}
    assert ConfusionMatrix(1).compute(space(1))['miou_foreground'] is None


def test_one_matrix_for_all_frames_is_not_the_mean_over_frames():
    confusion = ConfusionMatrix(2)
    confusion.update(np.zeros((1, 9), np.uint8), np.zeros((1, 9), np.uint8))
    confusion.update(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8))
    assert confusion.compute(space(2))['per_class_iou'] == {'class0': 90.0, 'class1': 0.0}


@pytest.mark.parametrize(
    ('labels', 'truth', 'message'),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r'\(2, 3\).*\(3, 2\)'),
        (np.full((1, 1), 3), np.zeros((1, 1)), 'prediction has the class id 3.*3 classes'),
        (np.zeros((1, 1)), np.full((1, 1), 254), 'ground truth has the class id 254'),
        (np.full((1, 1), -1), np.zeros((1, 1)), 'prediction has the class id -1'),
    ],
)
def test_what_cannot_be_compared_is_refused_and_not_counted(labels, truth, message):
    confusion = ConfusionMatrix(3)
    with pytest.raises(SartmError, match=message):
        confusion.update(labels.astype(np.int64), truth.astype(np.int64))
    assert confusion.counts.sum() == confusion.frames == 0


def test_a_matrix_of_another_label_space_is_refused():
    with pytest.raises(SartmError, match=r"3 classes were counted.*'mfnet' has 9"):
        ConfusionMatrix(3).compute(MFNET)


def dataset(*frames):
    return FrameList(frames, space(2))


def frame(name, truth, condition):
    labels = None if truth is None else np.array([truth], np.uint8)
    return Frame(name, {'thermal': np.zeros((1, 2), np.uint8)}, labels, condition)


def test_evaluate_counts_day_and_night_apart_and_together():
    frames = [
        frame('1D', [0, 1], 'day'),
        frame('2N', [1, 1], 'night'),
        frame('3', [1, 1], None),
        frame('4N', [0, 1], 'night'),
    ]
    predicted = {'1D': [0, 1], '2N': [0, 1], '3': [0, 0], '4N': [0, 0]}
    figures = evaluate(
        lambda f: FramePrediction(np.array([predicted[f.name]], np.uint8)), dataset(*frames)
    )
    assert figures['confusion'] == [[2, 0], [4, 2]]
    assert figures['day']['confusion'] == [[1, 0], [0, 1]]
    assert figures['night']['confusion'] == [[1, 0], [2, 1]]
    assert [figures['frames'], figures['day']['frames'], figures['night']['frames']] == [4, 1, 2]
    assert figures['day']['miou'] == 100.0
    assert figures['night']['miou'] == pytest.approx((100 / 3 + 100 / 3) / 2)
    assert set(figures) - {'day', 'night'} == set(figures['day'])
    # Plain JSON, and no mean is NaN.
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert not math.isnan(figures['miou'])


def test_a_condition_may_have_any_name_but_one_that_the_result_or_its_report_uses():
    def predict(frame):
        return FramePrediction(np.array([[0, 1]], np.uint8))

    frames = [frame('a', [0, 1], 'rain'), frame('b', [1, 1], 'fog'), frame('c', [0, 1], 'rain')]
    figures = evaluate(predict, dataset(*frames))
    assert {name: group['frames'] for name, group in condition_groups(figures).items()} == {
        'fog': 1, 'rain': 2
    }  # fmt: skip
    assert figures['rain']['pixel_accuracy'] == 100.0
    for name in ('miou', 'all', 'settings', 'unknown'):
        with pytest.raises(SartmError, match=f'b has the condition {name}, which is the name'):
            evaluate(predict, dataset(frame('a', [0, 1], None), frame('b', [0, 1], name)))


def test_evaluate_returns_boundary_f1_calibration_and_the_miou_of_each_frame():
    frames = [
        frame('1D', [0, 1], 'day'),
        frame('2N', [1, 1], 'night'),
        frame('3N', [255, 255], 'night'),
    ]

    def predict(_frame):
        return FramePrediction(np.array([[0, 1]], np.uint8), np.array([[0.5, 1.0]], np.float32))

    figures = evaluate(predict, dataset(*frames))
    # 1D: both right. 2N: class 1 has 1 hit and 1 miss; class 0 is only predicted.
    assert figures['frame_miou'] == {'1D': 100.0, '2N': 25.0, '3N': None}
    assert figures['night']['frame_miou'] == {'2N': 25.0, '3N': None}
    # of class 1 one outline pixel is true and found (1D), one more is predicted (2N)
    assert figures['boundary_f1'] == pytest.approx(200 / 3)
    assert figures['day']['boundary_f1'] == 100.0
    # confidence 0.5: 1 of 2 right; confidence 1: 2 of 2 right
    assert figures['ece'] == 0.0
    assert figures['day']['ece'] == pytest.approx(25.0)
    assert figures['reliability']['pixels'] == [*[0] * 7, 2, *[0] * 6, 2]
    labels_alone = evaluate(lambda f: FramePrediction(predict(f).labels), dataset(*frames))
    assert labels_alone['ece'] is None
    assert labels_alone['confusion'] == figures['confusion']


def test_evaluate_leaves_out_conditions_that_no_frame_has():
    figures = evaluate(lambda f: FramePrediction(f.labels), dataset(frame('a', [0, 1], None)))
    assert 'day' not in figures
    assert 'night' not in figures


def test_metrics_need_no_torch():
    """The replay of an exported network needs ONNX Runtime only."""
    code = 'import sys, sartm_model.evaluation.evaluate as e; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_evaluate_names_the_frame_at_fault():
    with pytest.raises(SartmError, match='frame a has no labels'):
        evaluate(lambda f: FramePrediction(f.thermal), dataset(frame('a', None, None)))
    with pytest.raises(SartmError, match=r'frame b: the prediction is \(1, 3\)'):
        evaluate(
            lambda f: FramePrediction(np.zeros((1, 3), np.uint8)),
            dataset(frame('b', [0, 1], None)),
        )
