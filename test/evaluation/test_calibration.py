"""Reliability and calibration error, against torchmetrics, loops and a case computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartm_model.evaluation.calibration import NUM_BINS, Calibration
from sartm_model.utils.torchvision_patch import patch_torchvision_ops


def counted(*images):
    calibration = Calibration()
    for labels, confidence, truth in images:
        calibration.update(
            np.array(labels, np.uint8), np.array(confidence, np.float32), np.array(truth, np.uint8)
        )
    return calibration


@pytest.mark.parametrize(('classes', 'sharpness', 'seed'), [(2, 1, 0), (9, 3, 1), (15, 0.2, 2)])
def test_agrees_with_torchmetrics(classes, sharpness, seed):
    patch_torchvision_ops()
    from torchmetrics.classification import MulticlassCalibrationError

    theirs = MulticlassCalibrationError(classes, n_bins=NUM_BINS, norm='l1', ignore_index=255)
    generator = torch.Generator().manual_seed(seed)
    ours = Calibration()
    for _ in range(3):
        logits = sharpness * torch.randn(classes, 40, 50, generator=generator)
        probability = logits.softmax(dim=0)
        truth = torch.randint(classes, (40, 50), generator=generator)
        truth[torch.rand(40, 50, generator=generator) < 0.2] = 255
        theirs.update(probability[None], truth[None])
        confidence, labels = probability.max(dim=0)
        ours.update(labels.byte().numpy(), confidence.numpy(), truth.byte().numpy())
    assert ours.compute()['ece'] == pytest.approx(100 * theirs.compute().item(), abs=1e-3)


def test_by_hand():
    """Bins of 1/15: 0.10 is in the second (1 of 2 right), 0.95 and 1 in the last (1 of 2)."""
    calibration = counted(
        ([[1, 1, 2]], [[0.10, 0.12, 0.95]], [[1, 0, 2]]), ([[0, 0]], [[1.0, 0.5]], [[1, 255]])
    )
    figures = calibration.compute()
    assert figures['reliability']['pixels'] == [0, 2, *[0] * 12, 2]
    assert figures['reliability']['accuracy'] == [None, 50.0, *[None] * 12, 50.0]
    mean = figures['reliability']['confidence']
    assert [mean[1], mean[14]] == pytest.approx([11.0, 97.5])
    assert figures['ece'] == pytest.approx((2 * 39 + 2 * 47.5) / 4)


def test_full_confidence_is_calibrated_only_if_all_is_correct():
    sure = np.ones((2, 2))
    labels = np.array([[0, 1], [2, 3]])
    assert counted((labels, sure, labels)).compute()['ece'] == 0
    assert counted((labels, sure, labels + 1)).compute()['ece'] == 100


def test_nothing_labelled():
    for calibration in (Calibration(), counted(([[1]], [[0.5]], [[255]]))):
        figures = calibration.compute()
        assert figures['ece'] is None
        assert figures['reliability']['pixels'] == [0] * NUM_BINS
        assert figures['reliability']['accuracy'] == [None] * NUM_BINS


def test_merging_equals_counting_all_images():
    rng = np.random.default_rng(0)
    images = [
        (rng.integers(0, 3, (5, 6)), rng.random((5, 6)), rng.integers(0, 3, (5, 6)))
        for _ in range(2)
    ]
    apart = counted(images[0])
    apart.merge(counted(images[1]))
    assert apart.compute() == counted(*images).compute()
