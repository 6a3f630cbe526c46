"""The weighted F-measure against PySODMetrics, and how it is averaged and reported."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from frame_list import FrameList
from html_page import Page

from sartm_model.cli.main import main
from sartm_model.data.frame import Frame
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.evaluation.f_measure import FMeasure, weighted_f_measure
from sartm_model.labels import IGNORE_ID, LabelSpace

pytest.importorskip('scipy', reason='needs SciPy')

SPACE = LabelSpace('three', ('ground', 'cat', 'dog'), ((0, 0, 0), (9, 0, 0), (0, 9, 0)), 0)


def blobs(seed: int, size=(60, 80), count: int = 5) -> np.ndarray:
    """A mask of some discs, some of which touch the border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for _ in range(count):
        centre = int(rng.integers(0, size[1])), int(rng.integers(0, size[0]))
        cv2.circle(mask, centre, int(rng.integers(1, 14)), 1, -1)
    return mask.astype(bool)


def reference(maps, truths) -> float:
    """The mean of PySODMetrics over pairs of a map in [0, 1] and a mask."""
    metrics = pytest.importorskip('py_sod_metrics', reason='needs pysodmetrics: the reference')
    measure = metrics.WeightedFmeasure()
    for one, truth in zip(maps, truths, strict=True):
        measure.step(one.astype(np.float64), truth, normalize=False)
    return float(measure.get_results()['wfm'])


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('kind', ['mask', 'probabilities', 'shifted', 'nothing', 'all'])
def test_a_map_has_the_measure_of_pysodmetrics(seed, kind):
    truth = blobs(seed)
    prediction = {
        'mask': blobs(seed + 100),
        'probabilities': np.random.default_rng(seed).random(truth.shape),
        'shifted': np.roll(truth, 3, axis=1),
        'nothing': np.zeros(truth.shape),
        'all': np.ones(truth.shape, bool),
    }[kind]
    expected = reference([prediction], [truth])
    assert weighted_f_measure(prediction, truth) == pytest.approx(expected, abs=1e-9)


def test_a_perfect_map_has_1_and_an_empty_truth_0():
    truth = blobs(0)
    assert weighted_f_measure(truth, truth) == pytest.approx(1)
    assert weighted_f_measure(truth, np.zeros_like(truth)) == 0


def test_classes_are_averaged_as_pysodmetrics_does_over_their_masks():
    rng = np.random.default_rng(0)
    measure = FMeasure(3)
    pairs = {id_: [] for id_ in range(3)}
    for seed in range(5):
        truth = np.where(blobs(seed), 1, 0).astype(np.uint8)
        if seed % 2:
            truth[blobs(seed + 20)] = 2
        labels = np.where(rng.random(truth.shape) < 0.1, 0, np.roll(truth, 2, 0)).astype(np.uint8)
        measure.update(labels, truth)
        for id_ in np.unique(truth).tolist():
            pairs[id_].append((labels == id_, truth == id_))
    found = measure.compute(SPACE)
    for id_, name in enumerate(SPACE.classes):
        expected = 100 * reference(*zip(*pairs[id_], strict=True))
        assert found['per_class_f_measure'][name] == pytest.approx(expected)
    every = [pair for of_class in pairs.values() for pair in of_class]
    objects = [*pairs[1], *pairs[2]]
    assert len(pairs[2]) == 2
    assert found['f_measure'] == pytest.approx(100 * reference(*zip(*every, strict=True)))
    expected = 100 * reference(*zip(*objects, strict=True))
    assert found['f_measure_foreground'] == pytest.approx(expected)


def test_pixels_that_are_not_labelled_do_not_count():
    truth = np.where(blobs(1), 1, 0).astype(np.uint8)
    labels = truth.copy()
    truth[:, 60:] = IGNORE_ID
    labels[:, 60:70], labels[:, 70:] = 1, 2
    measure = FMeasure(3)
    measure.update(labels, truth)
    found = measure.compute(SPACE)
    assert found['f_measure'] == pytest.approx(100)
    assert found['per_class_f_measure']['dog'] is None
    measure = FMeasure(3)
    measure.update(np.zeros_like(truth), np.full_like(truth, IGNORE_ID))
    assert measure.compute(SPACE)['f_measure'] is None


def test_parts_are_merged():
    whole, parts = FMeasure(3), [FMeasure(3), FMeasure(3)]
    for seed in range(4):
        pair = blobs(seed + 50).astype(np.uint8), blobs(seed).astype(np.uint8)
        whole.update(*pair)
        parts[seed % 2].update(*pair)
    parts[0].merge(parts[1])
    np.testing.assert_allclose(parts[0].sums, whole.sums)
    np.testing.assert_array_equal(parts[0].images, whole.images)


def test_without_a_background_there_is_one_mean():
    measure = FMeasure(2)
    measure.update(blobs(1).astype(np.uint8), blobs(0).astype(np.uint8))
    found = measure.compute(LabelSpace('two', ('road', 'sky'), ((0, 0, 0), (9, 0, 0))))
    assert found['f_measure'] > 0
    assert found['f_measure_foreground'] is None


def test_it_is_computed_where_it_is_requested():
    thermal = np.zeros((60, 80), np.uint8)
    frames = [
        Frame(str(seed), {'thermal': thermal}, blobs(seed).astype(np.uint8), condition)
        for seed, condition in enumerate(('day', 'night', None))
    ]

    def predict(frame):
        return FramePrediction(np.roll(frame.labels, 2, axis=0))

    plain = evaluate(predict, FrameList(frames, SPACE))
    assert 'f_measure' not in plain
    found = evaluate(predict, FrameList(frames, SPACE), f_measure=True)
    assert 'f_measure' in found['day']
    everything = FMeasure(3)
    for frame in frames:
        everything.update(predict(frame).labels, frame.labels)
    assert found['f_measure'] == pytest.approx(everything.compute(SPACE)['f_measure'])


def test_the_command_reports_it(tmp_path, nano_checkpoint):
    from mfnet_frames import write_frames

    labels = {f'{n}D': np.kron(np.eye(4), np.ones((16, 24))).astype(np.uint8) for n in range(2)}
    root = write_frames(tmp_path / 'mfnet', labels)
    where = ['--dataset', 'mfnet', '--root', str(root), '--split', 'val', '--f-measure']
    written = ['--json', str(tmp_path / 'x.json'), '--report', str(tmp_path)]
    assert main(['evaluate', '--checkpoint', str(nano_checkpoint), *where, *written]) == 0
    figures = json.loads((tmp_path / 'x.json').read_text())
    means, classes, *_ = Page((tmp_path / 'report.html').read_text()).tables
    rows = {row[0]: row[1] for row in means}
    for key, text in (
        ('f_measure', 'weighted F-measure (9 classes)'),
        ('f_measure_foreground', 'weighted F-measure without background (8 classes)'),
    ):
        assert rows[text] == f'{figures[key]:.1f} %'
    assert 'weighted F-measure' in classes[0]
    by_name = {row[0]: row for row in classes}
    assert by_name['unlabeled'][-1] == f'{figures["per_class_f_measure"]["unlabeled"]:.1f} %'
    assert by_name['bump'][-1] == '–'
