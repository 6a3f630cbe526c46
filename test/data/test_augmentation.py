"""Training samples: what the augmentation does to images and labels, and which ones are drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sartm_model.config import DataConfig
from sartm_model.data.augmentation import augment, random_resized_crop, to_sample
from sartm_model.data.frame import Frame
from sartm_model.data.sampling import ResumableBatchSampler
from sartm_model.errors import SartmError


def frame_of(name: str, thermal: np.ndarray, labels: np.ndarray) -> Frame:
    """A frame whose RGB image shows the thermal counts in each channel."""
    return Frame(name, {'rgb': np.repeat(thermal[..., None], 3, 2), 'thermal': thermal}, labels)


def gradient_frame() -> Frame:
    """Every image holds the pixel's column (and the labels its half), so geometry can be read."""
    columns = np.tile(np.arange(200, dtype=np.uint8), (120, 1))
    return frame_of('x', columns, (columns >= 100).astype('u1'))


def test_augmentation_moves_all_images_alike_and_colour_is_rgbs_alone():
    config = DataConfig(crop_height=64, crop_width=96, drop_modality=0.5)
    drop_masks = set()
    for seed in range(40):
        sample = augment(gradient_frame(), config, np.random.default_rng(seed), background_id=0)
        assert sample.images['rgb'].shape == (64, 96, 3)
        assert sample.images['thermal'].shape == (64, 96)
        # Where the crop leaves the frame the images are mirrored: that is left out.
        labelled = (sample.labels != 255).numpy().astype('u1')
        inner = cv2.erode(
            labelled, np.ones((15, 15)), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        # Thermal is a ramp over the frame, never jittered: its value tells the source column.
        scaled = sample.images['thermal'].float()
        inside = torch.from_numpy(inner > 0) & (scaled > 0.02) & (scaled < 0.98)
        # The range's percentiles are taken of every fourth column: of 0, 4, ... 196.
        column = 196 * (0.01 + 0.98 * scaled)
        clear = inside & ((column - 99.5).abs() > 3)
        assert ((column > 99.5) == (sample.labels == 1))[clear].all()
        # RGB was jittered, but never falls where thermal rises.
        valid = torch.from_numpy(inner[:, 1:] > 0)
        agree = sample.images['rgb'][..., 0].int().diff(dim=1) * scaled.diff(dim=1)
        assert (agree[valid] >= -1e-3).all()
        drop_masks.add(tuple(sample.drop_mask.tolist()))
    assert drop_masks == {(False, False), (True, False), (False, True)}


def test_outside_of_the_frame_the_images_are_mirrored_and_the_labels_ignored():
    config = DataConfig(crop_height=160, crop_width=240, scale_min=0.5, scale_max=0.5)
    bright = np.full((120, 200), 250, np.uint8)
    frame = frame_of('x', bright, np.ones_like(bright))
    sample = augment(frame, config, np.random.default_rng(0), background_id=0)
    # A frame of 120x200 halved fills 60x100 of the crop.
    assert (sample.labels == 1).sum() == pytest.approx(60 * 100, rel=0.05)
    assert (sample.labels == 255).sum() == 160 * 240 - (sample.labels == 1).sum()
    assert sample.images['rgb'].amax() == sample.images['rgb'].amin()


def test_a_frame_is_as_often_enlarged_as_reduced():
    """The scale is that of the ramp which the image is; its logarithm is distributed equally."""
    config = DataConfig(crop_height=8, crop_width=96, scale_min=0.5, scale_max=2.0)
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None], (120, 1, 3))
    frame = Frame('x', {'rgb': ramp}, np.zeros((120, 200), np.uint8))
    rng = np.random.default_rng(0)
    scales = []
    for _ in range(600):
        crop = random_resized_crop(frame, config, rng, 0)
        scales.append(95 / np.ptp(crop.images['rgb'].astype(float)))
    quartiles = np.quantile(scales, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(np.log2(quartiles), [-1, -0.5, 0, 0.5, 1], atol=0.15)


def frame_with_a_cone() -> Frame:
    """All background but for 8x6 pixels of class 7 in a corner, where both images are bright."""
    labels = np.zeros((240, 320), np.uint8)
    labels[200:208, 300:306] = 7
    image = np.where(labels > 0, 220, 40).astype(np.uint8)
    return frame_of('cone', image, labels)


def test_an_object_crop_holds_an_object():
    small = {'crop_height': 32, 'crop_width': 32, 'scale_min': 1.0, 'scale_max': 1.0}
    rng = np.random.default_rng(0)

    def with_cone(config):
        return sum(
            bool((augment(frame_with_a_cone(), config, rng, background_id=0).labels == 7).any())
            for _ in range(40)
        )

    assert with_cone(DataConfig(object_crop=1.0, **small)) == 40
    assert with_cone(DataConfig(object_crop=0.0, **small)) < 20
    # A frame without objects has nothing to lay a crop on.
    bare = frame_of('bare', *(np.zeros((99, 99), np.uint8),) * 2)
    assert not augment(
        bare, DataConfig(object_crop=1.0, **small), rng, background_id=0
    ).labels.any()


def test_pixels_that_are_not_labelled_are_no_object():
    """No crop is laid on them, and they are not pasted."""
    cone = frame_with_a_cone()
    assert cone.labels is not None
    cone.labels[:, :300] = 255
    empty = frame_of('x', *(np.full((240, 320), 3, np.uint8),) * 2)
    window = {'crop_height': 16, 'crop_width': 16, 'scale_min': 1.0, 'scale_max': 1.0}
    config = DataConfig(object_crop=1.0, **window)
    rng = np.random.default_rng(0)
    with_cone, pasted_ids = 0, set()
    for _ in range(60):
        sample = augment(cone, config, rng, background_id=0)
        with_cone += bool((sample.labels == 7).any())
        sample = augment(empty, config, rng, cone, background_id=0)
        pasted_ids |= set(sample.labels.unique().tolist()) - {3}
    assert with_cone >= 55  # rounding may leave the pixel at the crop's edge out
    assert pasted_ids == {7}


def test_the_background_may_be_another_class_or_none():
    """Ids 0 and 7 without a background are two objects, and 7 as the background is none."""
    window = {'crop_height': 16, 'crop_width': 16, 'scale_min': 1.0, 'scale_max': 1.0}
    config = DataConfig(object_crop=1.0, **window)

    def crops_with_the_cone(background_id):
        rng = np.random.default_rng(0)
        samples = (
            augment(frame_with_a_cone(), config, rng, background_id=background_id)
            for _ in range(60)
        )
        return sum(bool((sample.labels == 7).any()) for sample in samples)

    assert crops_with_the_cone(0) == 60
    assert 15 <= crops_with_the_cone(None) <= 45  # either class with equal chance
    assert crops_with_the_cone(7) <= 5

    empty = frame_of('x', *(np.full((240, 320), 3, np.uint8),) * 2)
    for background_id, pasted_ids in ((0, {7}), (7, {0}), (None, {0, 7})):
        found = set()
        for seed in range(30):
            rng = np.random.default_rng(seed)
            sample = augment(empty, config, rng, frame_with_a_cone(), background_id=background_id)
            found |= set(sample.labels.unique().tolist()) - {3}
        assert found == pasted_ids


def test_pasted_objects_come_with_both_images_and_their_labels():
    config = DataConfig(
        crop_height=64, crop_width=64, scale_min=1.0, scale_max=1.0, object_crop=1.0
    )
    ramp = np.tile(np.arange(100, 180, dtype=np.uint8), (240, 4))
    plain = frame_of('x', ramp, np.zeros_like(ramp))
    pasted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sample = augment(plain, config, rng, frame_with_a_cone(), background_id=0)
        cone = sample.labels == 7
        assert set(sample.labels.unique().tolist()) <= {0, 7}
        if cone.any():
            pasted += 1
            # The cone is its frame's warmest part, the top of the thermal range and beyond.
            assert (
                sample.images['thermal'][cone].mean() > sample.images['thermal'][~cone].mean() + 0.1
            )
            assert (
                sample.images['rgb'][cone].float().mean()
                > sample.images['rgb'][~cone].float().mean()
            )
    assert 10 <= pasted <= 30  # each class is taken or left with equal chance


def test_the_samples_of_all_processes_are_all_samples():
    def numbers(first, rank):
        batches = iter(ResumableBatchSampler(first, 3, rank, 2))
        return [next(batches) for _ in range(4)]

    together = [
        n for pair in zip(numbers(0, 0), numbers(0, 1), strict=True) for b in pair for n in b
    ]
    assert together == list(range(24))
    assert numbers(2, 1) == [[15, 16, 17], [21, 22, 23], [27, 28, 29], [33, 34, 35]]


@pytest.mark.parametrize(
    ('drop_modality', 'rgb', 'thermal'),
    [
        (0.4, 0.2, 0.2),
        ({'rgb': 0.3, 'thermal': 0.1}, 0.3, 0.1),
        ({'thermal': 1.0}, 0, 1),
        (0, 0, 0),
    ],
)
def test_modalities_are_hidden_as_often_as_set(drop_modality, rgb, thermal):
    config = DataConfig(crop_height=8, crop_width=8, drop_modality=drop_modality)
    crop = random_resized_crop(gradient_frame(), config, np.random.default_rng(0), 0)
    rng = np.random.default_rng(1)
    masks = np.stack([to_sample(crop, config, rng).drop_mask for _ in range(2000)])
    assert not masks.all(axis=1).any()
    # Five standard deviations of a mean of 2000.
    assert masks.mean(axis=0) == pytest.approx([rgb, thermal], abs=0.05)


@pytest.mark.parametrize('value', [{'rgb': 0.6, 'thermal': 0.6}, {'rgb': -0.1}, 'rgb', None])
def test_what_is_no_probability_of_hiding_a_modality(value):
    with pytest.raises(SartmError, match=r'data\.drop_modality is .* expected a probability'):
        DataConfig(drop_modality=value)
