"""Sensor faults in training samples: their geometry on ramps, their statistics on flat images."""

from __future__ import annotations

import numpy as np
import pytest

from sartm_model.config import DataConfig
from sartm_model.data.augmentation import augment, photometric
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities.rgb_faults import glare, over_expose
from sartm_model.modalities.thermal_faults import FROZEN_SHIFT, FROZEN_ZOOM, corrupt_thermal

HEIGHT, WIDTH = 60, 80


def ramps() -> tuple[np.ndarray, np.ndarray]:
    """Two images whose pixels hold their own column, and their own row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return columns, rows


def displacement(config: DataConfig, seed: int) -> tuple[float, float, float]:
    """Zoom and shift (x, y) that a seed gives, read off the ramps away from the mirrored border."""
    columns, rows = (corrupt_thermal(ramp, config, np.random.default_rng(seed)) for ramp in ramps())
    zoom = np.diff(columns[:, 20:60], axis=1).mean()
    assert np.diff(rows[20:40], axis=0).mean() == pytest.approx(zoom, abs=0.005)
    # The middle lies between four pixels.
    middle = (slice(HEIGHT // 2 - 1, HEIGHT // 2 + 1), slice(WIDTH // 2 - 1, WIDTH // 2 + 1))
    x = columns[middle].mean() - (WIDTH - 1) / 2
    return zoom, x, rows[middle].mean() - (HEIGHT - 1) / 2


def test_a_shift_is_up_to_its_strength_on_both_axes():
    found = np.array([displacement(DataConfig(thermal_shift=6.0), seed) for seed in range(60)])
    assert found[:, 0] == pytest.approx(1, abs=0.005)
    shifts = found[:, 1:]
    assert (abs(shifts) < 6.05).all()
    # Uniform in [-6, 6]: the standard deviation is 12 / sqrt(12).
    assert shifts.std(axis=0) == pytest.approx(12 / np.sqrt(12), rel=0.15)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.3


def test_a_scale_zooms_about_the_centre():
    found = np.array([displacement(DataConfig(thermal_scale=0.1), seed) for seed in range(60)])
    assert abs(found[:, 1:]).max() < 0.05
    assert found[:, 0].min() == pytest.approx(0.9, abs=0.02)
    assert found[:, 0].max() == pytest.approx(1.1, abs=0.02)


def test_a_frozen_image_is_smaller_and_shifted_sideways():
    found = np.array([displacement(DataConfig(thermal_freeze=1.0), seed) for seed in range(60)])
    # A zoom above 1 takes a pixel's value from further out: things are shown smaller.
    assert (found[:, 0] > FROZEN_ZOOM[0] - 0.01).all()
    assert (found[:, 0] < FROZEN_ZOOM[1] + 0.01).all()
    assert (abs(found[:, 1]) < FROZEN_SHIFT * WIDTH + 0.1).all()
    assert abs(found[:, 1]).max() > 0.8 * FROZEN_SHIFT * WIDTH
    assert abs(found[:, 2]).max() < 0.05
    seldom = DataConfig(thermal_freeze=0.3)
    frozen = [displacement(seldom, seed)[0] > 1.01 for seed in range(200)]
    assert np.mean(frozen) == pytest.approx(0.3, abs=0.1)


def test_noise_is_white_with_a_pattern_of_columns_and_rows():
    flat = np.full((HEIGHT, WIDTH), 0.4, np.float32)
    config = DataConfig(thermal_noise=0.1)
    rng = np.random.default_rng(0)  # one stream, for 1000 strengths
    corrupted = np.array([corrupt_thermal(flat, config, rng) for _ in range(1000)])
    assert corrupted.dtype == np.float32
    noise = corrupted - 0.4
    # The strength is uniform in [0, 0.1], its mean square 0.1^2 / 3; a pattern adds a quarter.
    square = 0.1**2 / 3
    assert noise.mean() == pytest.approx(0, abs=1e-3)
    assert noise.var() == pytest.approx(1.5 * square, rel=0.1)
    # In a column's mean the pixels' noise and the rows' pattern cancel but for one in HEIGHT.
    assert noise.mean(axis=1).var() == pytest.approx(square * (0.25 + 1.25 / HEIGHT), rel=0.15)
    assert noise.mean(axis=2).var() == pytest.approx(square * (0.25 + 1.25 / WIDTH), rel=0.15)
    assert (flat == np.float32(0.4)).all()


def test_over_exposure_only_adds_light_and_clips():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    rgb[::2, ::2] = 0
    config = DataConfig(over_exposure=1.0)
    with_gain = with_glare = 0
    for seed in range(90):
        lit = over_expose(rgb, config, np.random.default_rng(seed))
        assert lit.dtype == np.uint8
        assert (lit >= rgb).all()
        # A gain leaves black black; glare is a blob, and far from it nothing is added.
        gain = np.median(lit[rgb > 0] / rgb[rgb > 0]) > 1.2
        glare = (lit[rgb == 0] > 100).any()
        assert gain or glare
        with_gain, with_glare = with_gain + gain, with_glare + glare
    assert 45 < with_gain < 90  # two thirds have each
    assert 45 < with_glare < 90
    seldom = DataConfig(over_exposure=0.2)
    touched = [over_expose(rgb, seldom, rng) is not rgb for _ in range(200)]
    assert np.mean(touched) == pytest.approx(0.2, abs=0.08)


def test_glare_is_a_white_blob():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    config = DataConfig(over_exposure=1.0)
    blobs = [over_expose(black, config, np.random.default_rng(seed)) for seed in range(30)]
    lit = [blob for blob in blobs if blob.any()]
    assert 10 < len(lit) < 30
    for blob in lit:
        assert (blob == blob[..., :1]).all()
        y, x = np.unravel_index(np.argmax(blob[..., 0]), (HEIGHT, WIDTH))
        assert blob[y, x, 0] == 255
        # Along its row it falls on both sides of the peak, a plateau at 255 aside.
        line = blob[y, :, 0].astype(int)
        assert (np.diff(line[: x + 1]) >= 0).all()
        assert (np.diff(line[line.nonzero()[0][line[line > 0].argmax()] :][x:]) <= 0).all()
        assert blob.mean() < 200
    centres = [np.mean(np.nonzero(blob[..., 0] == 255), axis=1) for blob in lit]
    assert np.min(np.ptp(centres, axis=0) / (HEIGHT, WIDTH)) > 0.7


def test_the_light_of_a_headlight_has_a_deviation_of_a_sixth_of_the_height_and_a_veil():
    black = np.zeros((240, 320, 3), np.uint8)
    centres = []
    for seed in range(10):
        image = glare(black, 1, np.random.default_rng(seed), lambda n: black)
        assert (image == image[..., :1]).all()
        light = image[..., 0].astype(int)
        assert light.max() == 64  # a quarter of white
        y, x = (round(place) for place in np.mean(np.nonzero(light == 64), axis=1))
        sideways = x + (40 if x < 160 else -40)
        expected = 64 * (0.1 + 0.9 * np.exp(-1 / 2))
        assert light[[y - 40, y], [x, sideways]] == pytest.approx(expected, abs=2)
        assert light.min() == pytest.approx(0.1 * 64, abs=1)
        centres.append((y / 240, x / 320))
    low, high = np.min(centres, axis=0), np.max(centres, axis=0)
    assert (low > (0.29, 0.09)).all()
    assert (high < (0.81, 0.91)).all()
    assert (high - low > (0.25, 0.4)).all()


def crop() -> Frame:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    labels = rng.integers(0, 9, (HEIGHT, WIDTH), np.uint8)
    images = {'rgb': rgb, 'thermal': rng.random((HEIGHT, WIDTH), np.float32)}
    return Frame('x', images, labels)


def test_faults_of_one_camera_leave_the_other_and_the_labels_alone():
    thermal_faults = DataConfig(
        thermal_shift=5, thermal_scale=0.05, thermal_noise=0.1, thermal_freeze=0.5
    )
    for seed in range(10):
        plain, corrupted, exposed = (
            photometric(crop(), config, np.random.default_rng(seed))
            for config in (DataConfig(), thermal_faults, DataConfig(over_exposure=1.0))
        )
        assert np.array_equal(corrupted.images['rgb'], plain.images['rgb'])
        assert not np.array_equal(corrupted.images['thermal'], plain.images['thermal'])
        assert np.array_equal(exposed.images['thermal'], plain.images['thermal'])
        assert not np.array_equal(exposed.images['rgb'], plain.images['rgb'])
        for one in (plain, corrupted, exposed):
            assert np.array_equal(one.labels, crop().labels)
    assert np.array_equal(plain.images['thermal'], crop().images['thermal'])


def test_nothing_is_drawn_while_all_is_off():
    rng = np.random.default_rng(0)
    one = crop()
    assert corrupt_thermal(one.images['thermal'], DataConfig(), rng) is one.images['thermal']
    assert over_expose(one.images['rgb'], DataConfig(), rng) is one.images['rgb']
    assert rng.random() == np.random.default_rng(0).random()


def test_colour_jitter_equals_its_steps_one_by_one():
    config = DataConfig(colour_jitter=1.0)
    compared = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rng.random()  # whether to jitter
        gain, contrast, saturation = rng.uniform(0.5, 1.5, size=3)
        if rng.random() < 0.2:  # a blur, which is not compared
            continue
        compared += 1
        image = crop().images['rgb'].astype(np.float64) * gain
        grey = image.mean(axis=2, keepdims=True)
        image = grey + (image - grey) * saturation
        image = image.mean() + (image - image.mean()) * contrast
        found = photometric(crop(), config, np.random.default_rng(seed)).images['rgb']
        assert np.abs(found - image.clip(0, 255)).max() < 1
    assert compared > 5

    def unchanged(config: DataConfig) -> float:
        made = [photometric(crop(), config, np.random.default_rng(seed)) for seed in range(40)]
        return np.mean([np.array_equal(one.images['rgb'], crop().images['rgb']) for one in made])

    assert unchanged(DataConfig(colour_jitter=1e-9)) == pytest.approx(0.8, abs=0.15)  # else blurred
    assert unchanged(DataConfig(colour_jitter=0.0)) == 1


def test_a_sample_with_every_fault_is_finite_and_repeatable():
    config = DataConfig(
        crop_height=32,
        crop_width=48,
        thermal_shift=5,
        thermal_scale=0.05,
        thermal_noise=0.1,
        thermal_freeze=0.5,
        over_exposure=0.5,
    )
    images = {
        'rgb': crop().images['rgb'],
        'thermal': (crop().images['thermal'] * 255).astype(np.uint8),
    }
    frame = Frame('x', images, crop().labels)
    for seed in range(5):
        one, same = (
            augment(frame, config, np.random.default_rng(seed), background_id=0) for _ in range(2)
        )
        assert one.name == same.name == 'x'
        for name, image in one.images.items():
            assert (image == same.images[name]).all()
        assert (one.labels == same.labels).all()
        assert (one.drop_mask == same.drop_mask).all()
        assert one.images['rgb'].shape == (32, 48, 3)
        assert one.images['thermal'].isfinite().all()
        assert one.images['thermal'].shape == (32, 48)


@pytest.mark.parametrize(
    ('values', 'fault'),
    [
        ({'thermal_freeze': 1.5}, 'thermal_freeze is 1.5; expected a probability'),
        ({'over_exposure': -0.1}, 'over_exposure'),
        ({'colour_jitter': 2}, 'colour_jitter'),
        ({'thermal_shift': -1}, 'thermal_shift is -1; expected 0 or more'),
        ({'thermal_noise': -1}, 'thermal_noise'),
        ({'sensor_noise': -1}, 'sensor_noise'),
        ({'thermal_scale': 1.0}, 'thermal_scale is 1.0; expected 0 to below 1'),
    ],
)
def test_strengths_that_make_no_sense(values, fault):
    with pytest.raises(SartmError, match=fault):
        DataConfig(**values)
