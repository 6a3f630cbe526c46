"""The shipped checkpoint `demo`: small, described, and better than chance by far."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sartm_model.data.registry import open_dataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models.summary import describe

FRAMES = 12


@pytest.fixture(scope='module')
def predictor():
    return Predictor('demo', device='cpu')


def first_frames(dataset, count=FRAMES):
    dataset.names = dataset.names[:count]
    return dataset


def test_it_is_small_and_carries_its_model_card():
    described = describe('demo')
    assert described['bytes'] <= 12e6
    assert described['model']['size'] == 'lite'
    assert described['labels'] == MFNET.to_dict()
    card = described['card']
    assert card['command'] == 'make train-demo'
    assert all(data['terms'] for data in card['data'])
    assert card['figures_percent']['generated scenes, test, RGB and thermal']['frames'] == 100
    json.dumps(described)


def test_it_segments_generated_scenes_by_both_modalities(predictor):
    """Calling everything unlabeled gives a mIoU of 10 %, and nothing for persons and cars."""
    scenes = first_frames(open_dataset('synthetic', None, 'test'))
    both = evaluate(lambda f: FramePrediction(predictor.predict(f.rgb, f.thermal).labels), scenes)
    assert both['miou'] > 45
    assert both['per_class_iou']['person'] > 55
    assert both['per_class_iou']['car'] > 65
    for alone in (
        evaluate(lambda f: FramePrediction(predictor.predict(f.rgb, None).labels), scenes),
        evaluate(lambda f: FramePrediction(predictor.predict(None, f.thermal).labels), scenes),
    ):
        assert alone['miou'] < both['miou']


def test_it_finds_persons_at_arms_length(predictor):
    """Whoever stands before the robot is neither a car nor background."""
    near = first_frames(open_dataset('synthetic', None, 'test_near'))
    found = evaluate(lambda f: FramePrediction(predictor.predict(f.rgb, f.thermal).labels), near)
    assert found['per_class_iou']['person'] > 70


def test_it_finds_persons_on_real_night_frames(predictor, real_data):
    """Well under the measured figure, and what no model that ignores the image could reach."""
    val = open_dataset('mfnet', real_data / 'mfnet', 'val')
    val.names = [name for name in val.names if name.endswith('N')][:FRAMES]
    found = evaluate(lambda f: FramePrediction(predictor.predict(f.rgb, f.thermal).labels), val)
    assert found['per_class_iou']['person'] > 50
    predicted = predictor.predict(val[0].rgb, val[0].thermal).labels
    assert predicted.shape == (480, 640)
    assert np.unique(predicted).max() < len(MFNET)
