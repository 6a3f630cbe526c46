"""What `ThermalSettings` do in a predictor: crop, counts without a measurement, polarity."""

from __future__ import annotations

import numpy as np
import pytest
from mfnet_frames import to_16_bits

from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities.thermal_settings import ThermalSettings

PERSON = 2
TELEMETRY = (0, 0, 2, 0)


@pytest.fixture(scope='module')
def predictor(nano_checkpoint):
    return Predictor(nano_checkpoint, device='cpu')


def pair(height=64, width=96, bits=8):
    """Noise in colour, and a ramp with noise."""
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    ramp = np.add.outer(np.linspace(40, 100, height), np.linspace(0, 100, width))
    ramp += rng.integers(0, 9, (height, width))
    return rgb, ramp.astype(np.uint8) if bits == 8 else (29000 + 8 * ramp).astype(np.uint16)


def with_telemetry(thermal, at_top=False):
    """Two rows of numbers that are no counts, as of a Lepton."""
    rows = np.random.default_rng(5).integers(0, 65536, (2, thermal.shape[1]))
    parts = [thermal, rows.astype(thermal.dtype)]
    return np.concatenate(parts[::-1] if at_top else parts)


def inputs(predictor, settings, *images):
    predictor.thermal_settings = settings
    return predictor.preprocess(*images).images['thermal'].numpy()


@pytest.mark.parametrize('at_top', [False, True])
def test_what_is_left_after_the_crop_covers_the_field_of_view_of_rgb(predictor, at_top):
    rgb, thermal = pair(bits=16)
    crop = (2, 0, 0, 0) if at_top else TELEMETRY
    small = thermal[::2, ::2]
    found = inputs(predictor, ThermalSettings(crop=crop), rgb, with_telemetry(small, at_top))
    np.testing.assert_array_equal(found, inputs(predictor, ThermalSettings(), rgb, small))


def test_a_homography_refers_to_the_image_before_the_crop(predictor):
    rgb, thermal = pair()
    settings = ThermalSettings('fixed', 40, 200)
    predictor.homography = [[1.1, 0.02, -3], [-0.03, 1.05, 2], [1e-4, 0, 1]]
    whole = inputs(predictor, settings, rgb, thermal)
    crop = (4, 8, 3, 5)
    cut = inputs(predictor, ThermalSettings('fixed', 40, 200, crop=crop), rgb, thermal)
    predictor.homography = None
    seen = cut != 0
    assert 0.6 < seen.mean() < 0.95
    # At the edge of the cut image bilinear interpolation mixes in the mean.
    inner = seen[..., 2:-2, 2:-2] & seen[..., 4:, 2:-2] & seen[..., :-4, 2:-2]
    inner &= seen[..., 2:-2, 4:] & seen[..., 2:-2, :-4]
    np.testing.assert_allclose(
        cut[..., 2:-2, 2:-2][inner], whole[..., 2:-2, 2:-2][inner], atol=1e-3
    )


@pytest.mark.parametrize('engine', ['eager', 'graph', 'parallel'])
def test_every_engine_uses_the_settings(nano_checkpoint, predictor, engine):
    rgb, thermal = pair(bits=16)
    other = Predictor(nano_checkpoint, device='cpu', engine=engine)
    predictor.thermal_settings = ThermalSettings()
    expected = predictor.predict(rgb, thermal, confidence=True)
    tested = [
        (ThermalSettings(crop=TELEMETRY), with_telemetry(thermal)),
        (ThermalSettings(polarity='black_hot'), 60000 - thermal),
    ]
    for settings, image in tested:
        other.thermal_settings = settings
        found = other.predict(rgb, image, confidence=True)
        assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 2
        assert (found.labels == expected.labels).mean() > 0.999
    filled = thermal.copy()
    filled[20:30, 20:30] = 77
    other.thermal_settings = predictor.thermal_settings = ThermalSettings(invalid=(77,))
    found, expected = (one.predict(rgb, filled, confidence=True) for one in (other, predictor))
    assert (found.labels == expected.labels).mean() > 0.999
    predictor.thermal_settings = ThermalSettings()
    seen = predictor.preprocess(rgb, thermal).images['thermal']
    np.testing.assert_array_equal(
        inputs(predictor, ThermalSettings(invalid=(77,)), rgb, filled)[..., 20:30, 20:30], 0
    )
    assert seen.abs().max() > 1


def test_a_smoothed_range_ignores_what_sees_nothing(nano_checkpoint):
    """Frames with a border that comes and goes, and one that sees nothing, in a video."""
    _, thermal = pair(bits=16)
    border = np.zeros_like(thermal)
    border[6:-6, 6:-6] = thermal[6:-6, 6:-6]
    predictor = Predictor(
        nano_checkpoint, device='cpu', thermal_settings=ThermalSettings(smoothing_s=1, invalid=(9,))
    )
    ranges = []
    for index, image in enumerate((border, np.full_like(thermal, 9), border, border)):
        predictor.preprocess(None, image, time_s=0.1 * index)
        ranges.append(predictor.pipeline.running_ranges['thermal'].numpy().copy())
    expected = np.quantile(border[8:-7:4, 8:-7:4], (0.01, 0.99))
    for found in ranges:
        np.testing.assert_allclose(found, expected, atol=1)


def test_upright_beside_lying_images_are_refused_and_not_stretched(predictor):
    rgb, thermal = pair()[0], pair(96, 64)[1]
    predictor.thermal_settings = ThermalSettings()
    with pytest.raises(SartmError, match=r'thermal is 64x96 and rgb is 96x64: .*Rotate'):
        predictor.predict(rgb, thermal)
    with pytest.raises(SartmError, match=r'rgb is 64x96 and thermal is 96x64: .*Rotate'):
        predictor.predict(np.ascontiguousarray(rgb.swapaxes(0, 1)), pair()[1])
    predictor.predict(None, thermal)
    predictor.predict(rgb, pair(64, 64)[1])
    # A homography may turn it.
    predictor.homography = [[0, -1, 95], [1, 0, 0], [0, 0, 1]]
    predictor.predict(rgb, thermal)
    predictor.homography = None


@pytest.mark.slow
def test_persons_on_real_night_frames_with_border_telemetry_and_vignette(real_data):
    """The IoU of persons stays within two points of that without, on frames brought to 16 bits."""
    predictor = Predictor('demo', device='cpu')
    frames = [f for f in open_dataset('mfnet', real_data / 'mfnet', 'val') if f.name.endswith('N')]
    frames = [frame for frame in frames if (frame.labels == PERSON).sum() > 500][:8]
    rows, columns = np.indices(frames[0].labels.shape)
    distance = np.hypot(rows - 239.5, columns - 319.5)

    def border(counts):
        kept = (rows >= 12) & (rows < 468) & (columns >= 12) & (columns < 628)
        return np.where(kept, counts, 0).astype(np.uint16)

    def vignette(counts):
        return np.where(distance < 370, counts, 0).astype(np.uint16)

    def small(counts):
        return counts[2::4, 2::4]

    def telemetry(counts):
        return with_telemetry(small(counts))

    def iou(change, **settings):
        predictor.thermal_settings = ThermalSettings(**settings)
        both = either = 0
        for frame in frames:
            labels = predictor.predict(frame.rgb, change(to_16_bits(frame.thermal))).labels
            found, true = labels == PERSON, frame.labels == PERSON
            both, either = both + (found & true).sum(), either + (found | true).sum()
        return 100 * both / either

    whole, of_quarter = iou(lambda counts: counts), iou(small)
    assert min(whole, of_quarter) > 40
    assert iou(border) > whole - 2
    assert iou(vignette) > whole - 2
    assert iou(telemetry, crop=TELEMETRY) > of_quarter - 2
    assert iou(telemetry) < of_quarter - 5  # so that the crop is needed
