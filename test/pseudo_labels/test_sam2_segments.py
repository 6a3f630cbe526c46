"""SAM2's automatic masks, whole, with random weights: what is tested is that all parts fit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from command_line import run

from sartm_model.data.registry import open_dataset
from sartm_model.models.sartm.sam2_weights import build_sam2, sam2_state
from sartm_model.pseudo_labels.sam2_segments import suppress_non_maxima


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('sam2') / 'sam2_hiera_tiny.pt'
    torch.save({'model': sam2_state('tiny', 'sam2')}, path)
    return path


@pytest.mark.slow
def test_thermal_images_become_labels(tmp_path, weights):
    images = tmp_path / 'thermal'
    images.mkdir()
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(20000, 30000, (6, 8), np.uint16), (80, 60))
    assert cv2.imwrite(str(images / 'a.png'), pixels)
    out = tmp_path / 'labels'
    options = '--points-per-side 3 --points-per-batch 4 --min-predicted-iou 0 --min-stability 0'
    status = run(
        'pseudo-label', '--source', 'sam2', '--checkpoint', weights, '--preset', 'paper',
        *options.split(), '--max-box-iou', '1', '--images', images, '--out', out,
    )  # fmt: skip
    assert status == 0
    (frame,) = open_dataset('folder', out / 'data.yaml', 'train')
    np.testing.assert_array_equal(frame.images['thermal'], pixels)
    assert frame.labels.max() > 1, 'several masks are kept'
    assert frame.labels.max() <= 9


def test_the_size_and_version_are_those_of_the_file(weights):
    built = build_sam2(weights).state_dict()
    stored = torch.load(weights, weights_only=True)['model']
    assert built.keys() == stored.keys()
    assert all(torch.equal(built[name], stored[name]) for name in stored)


@pytest.mark.parametrize('threshold', [0.3, 0.7])
def test_overlapping_boxes_compete(threshold):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (60, 2))
    boxes = np.concatenate([corners, corners + rng.integers(3, 15, (60, 2))], axis=1)
    scores, kinds = rng.random(60), rng.integers(0, 2, 60)

    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return common / (sum(areas) - common)

    expected = []
    for i in np.argsort(-scores):
        rivals = [j for j in expected if kinds[j] == kinds[i]]
        if all(iou(boxes[i], boxes[j]) <= threshold for j in rivals):
            expected.append(i)
    found = suppress_non_maxima(
        torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(kinds), threshold
    )
    assert found.tolist() == expected
