"""Depth, event, polarisation and light-field images: reading, units, scaling, mirroring, faults."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from frame_list import FrameList
from PIL import Image

from sartm_model.config import DataConfig
from sartm_model.data.augmentation import random_resized_crop
from sartm_model.data.frame import Frame
from sartm_model.data.transforms import flip_inputs, network_inputs
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset, corruption_names
from sartm_model.inference.transfer import to_device
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.base import Modality
from sartm_model.modalities.depth import millimetres
from sartm_model.modalities.polarization import encode

HEIGHT, WIDTH = 32, 48
SENSORS = [name for name in MODALITIES if name not in ('rgb', 'thermal')]
rng = np.random.default_rng(0)


def raw_image(modality: Modality, seed: int = 0) -> np.ndarray:
    """A plausible raw image in which every pixel has a value."""
    draw = np.random.default_rng(seed)
    shape = modality.blank(HEIGHT, WIDTH).shape
    if modality.dtypes == ('float32',):
        return draw.normal(size=shape).astype(np.float32)
    low, high = (500, 12000) if modality.dtypes == ('uint16',) else (0, 256)
    return draw.integers(low, high, shape).astype(modality.dtypes[0])


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), np.ascontiguousarray(colours))
    return path


@pytest.mark.parametrize('name', SENSORS)
def test_arrays_and_tensors_are_scaled_alike_and_shown(name):
    modality = MODALITIES[name]
    image = raw_image(modality)
    modality.check(image)
    assert len(modality.mean) == len(modality.std) == modality.channels
    (tensor,) = to_device([image], torch.device('cpu'))
    scaled = modality.scale(image)
    np.testing.assert_allclose(modality.scale(tensor), scaled, rtol=1e-6)
    backdrop = modality.backdrop(scaled)
    assert backdrop.shape[:2] == (HEIGHT, WIDTH)
    assert backdrop.shape[2] in (1, 3)
    assert backdrop.min() >= 0
    assert backdrop.max() <= 255
    np.testing.assert_allclose(modality.backdrop(modality.scale(tensor)), backdrop, atol=1e-3)
    shown = modality.show(image)
    assert shown.dtype == np.uint8
    assert shown.shape == (HEIGHT, WIDTH, 3)
    inputs = network_inputs({name: tensor})[name]
    expected = (np.atleast_3d(scaled) - modality.mean) / modality.std
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0), expected, atol=1e-4)
    assert abs(inputs).max() < 20  # half precision and a network can deal with it


@pytest.mark.parametrize('name', SENSORS)
def test_a_crop_without_a_change_is_the_image(name):
    image = raw_image(MODALITIES[name])
    frame = Frame('a', {name: image}, np.zeros((HEIGHT, WIDTH), np.uint8))
    config = DataConfig(crop_height=HEIGHT, crop_width=WIDTH, scale_min=1.0, scale_max=1.0)
    crops = [
        random_resized_crop(frame, config, np.random.default_rng(seed), None).images[name]
        for seed in range(8)
    ]
    scaled = MODALITIES[name].scale(image)
    straight = [np.abs(crop - scaled.astype(float)).max() < 1e-3 for crop in crops]
    mirrored = MODALITIES[name].mirror(scaled)[:, ::-1]
    turned = [np.abs(crop - mirrored.astype(float)).max() < 1e-3 for crop in crops]
    assert set(zip(straight, turned, strict=True)) == {(True, False), (False, True)}


@pytest.mark.parametrize('name', SENSORS)
def test_a_mirrored_input_is_the_input_of_the_mirrored_scene(name):
    modality = MODALITIES[name]
    scaled = modality.scale(raw_image(modality))
    mirrored = torch.from_numpy(np.ascontiguousarray(modality.mirror(scaled)[:, ::-1]))
    statistics = (np.asarray(x, np.float32) for x in (modality.mean, modality.std))
    mean, std = statistics

    def normalised(image: np.ndarray) -> torch.Tensor:
        image = image[..., None] if image.ndim == 2 else image
        return torch.from_numpy((image - mean) / std).permute(2, 0, 1)[None]

    found = flip_inputs(name, normalised(scaled))
    np.testing.assert_allclose(found, normalised(mirrored.numpy()), atol=1e-5)
    twice = flip_inputs(name, found)
    np.testing.assert_allclose(twice, normalised(scaled), atol=1e-5)


@pytest.mark.parametrize(
    'name', [name for name, (of, _) in corruption_names().items() if of in SENSORS]
)
def test_faults_repeat_and_keep_the_kind_of_image(name):
    of, fault = corruption_names()[name]
    modality = MODALITIES[of]
    frames = FrameList([Frame(str(n), {of: raw_image(modality, n)}) for n in range(4)])
    worst, again, mild = (
        [f.images[of] for f in CorruptedDataset(frames, corruption=name, severity=severity)]
        for severity in (5, 5, 1)
    )
    changed = []
    for frame, bad, same, little in zip(frames, worst, again, mild, strict=True):
        modality.check(bad)
        np.testing.assert_array_equal(bad, same)
        before = frame.images[of].astype(float)
        changed.append([np.abs(x - before).mean() for x in (little, bad)])
    little, much = np.mean(changed, axis=0)
    assert much > 0
    if fault not in ('freeze', 'shift'):  # noise images are as far from one neighbour as another
        assert much > little


# depth


def test_depth_in_millimetres_and_in_metres_is_the_same(tmp_path):
    counts = rng.integers(300, 60000, (HEIGHT, WIDTH)).astype(np.uint16)
    counts[0, :3] = 0
    metres = counts.astype(np.float32) / 1000
    metres[0, :3] = [np.nan, -np.inf, 0]
    write(tmp_path / 'depth.png', counts)
    Image.fromarray(metres).save(tmp_path / 'depth.tiff')
    for name in ('depth.png', 'depth.tiff'):
        np.testing.assert_array_equal(MODALITIES['depth'].read(tmp_path / name), counts)
    far = np.array([[65.5349, 65.536, 1000, np.inf, -1, 1e-9]], np.float32)
    np.testing.assert_array_equal(millimetres(far), [[65535, 65535, 65535, 65535, 0, 0]])


def test_depth_in_the_other_unit_is_refused_with_a_hint(tmp_path):
    read = MODALITIES['depth'].read
    counts = rng.integers(300, 9000, (HEIGHT, WIDTH))
    Image.fromarray(counts.astype(np.float32)).save(tmp_path / 'mm.tiff')
    with pytest.raises(SartmError, match=r'mm\.tiff: .*expected metres. Is it in millimetres\?'):
        read(tmp_path / 'mm.tiff')
    write(tmp_path / 'm.png', (counts // 1000).astype(np.uint16))
    with pytest.raises(
        SartmError, match=r'm\.png: depth in integers is at most 8; .*Is it in metres\?'
    ):
        read(tmp_path / 'm.png')
    write(tmp_path / 'grey.png', (counts % 256).astype(np.uint8))
    with pytest.raises(SartmError, match=r'grey\.png is an 8-bit image.*hha or depth_coded'):
        read(tmp_path / 'grey.png')
    write(tmp_path / 'empty.png', np.zeros((HEIGHT, WIDTH), np.uint16))
    assert not read(tmp_path / 'empty.png').any()  # nothing in range is no fault
    with pytest.raises(SartmError, match=r'float32; expected uint16 in millimetres'):
        MODALITIES['depth'].check(counts.astype(np.float32))


def test_a_pixel_without_a_reading_is_what_no_camera_sees():
    depth = np.full((HEIGHT, WIDTH), 2500, np.uint16)
    depth[:4] = 0
    (tensor,) = to_device([depth], torch.device('cpu'))
    inputs = network_inputs({'depth': tensor})['depth'][0, 0]
    assert (inputs[:4] == 0).all()
    np.testing.assert_allclose(inputs[4:], (2.5 - 5) / 5)
    # A crop mixes distances with the mean, and never with the 0 that stands for no reading.
    frame = Frame('a', {'depth': depth}, np.zeros((HEIGHT, WIDTH), np.uint8))
    config = DataConfig(crop_height=HEIGHT, crop_width=WIDTH)
    for seed in range(5):
        crop = random_resized_crop(frame, config, np.random.default_rng(seed), None)
        assert crop.images['depth'].min() >= 2.499
    resized = MODALITIES['depth'].resize(depth, HEIGHT // 2 + 1, WIDTH // 2 + 1)
    assert set(np.unique(resized)) == {0, 2500}
    # The pixel in the middle of three, not the first one, which would shift depth against RGB.
    columns = np.tile(np.arange(1, 31, dtype=np.uint16), (3, 1))
    np.testing.assert_array_equal(MODALITIES['depth'].resize(columns, 1, 10)[0], columns[0, 1::3])


def test_depth_noise_grows_with_the_square_of_the_distance():
    depth = np.repeat(np.array([[1000], [2000]], np.uint16), 20_000, axis=1)
    corrupt = MODALITIES['depth'].corruptions['noise']
    noisy = corrupt(depth, 5, np.random.default_rng(0), lambda n: depth)
    deviations_mm = (noisy.astype(float) - depth).std(axis=1)
    assert deviations_mm == pytest.approx([32, 4 * 32], rel=0.03)


def test_depth_is_shown_from_red_for_near_to_blue_for_far():
    """Distances of the farther half look different, too."""
    shown = MODALITIES['depth'].show(np.arange(0, 10001, dtype=np.uint16)[None])[0].astype(int)
    assert not shown[0].any()  # no reading
    assert shown[1].argmax() == 0
    colors = shown[[6000, 7000, 8000, 9000]]
    assert np.abs(np.diff(colors, axis=0)).max(axis=1).min() > 20
    assert shown[9500].argmax() == 2


def test_three_channels_of_16_bits_are_no_hha(tmp_path):
    write(tmp_path / 'x.png', np.full((4, 4), 900, np.uint16))
    with pytest.raises(SartmError, match=r'HHA must be 8-bit.*modality depth\?'):
        MODALITIES['hha'].read(tmp_path / 'x.png')


# event


@pytest.mark.parametrize('bins', [3, 5])
def test_voxel_grids_are_read_in_both_orders_of_axes(tmp_path, bins):
    grid = rng.normal(size=(HEIGHT, WIDTH, bins))
    modality = MODALITIES[f'event_voxel{bins}']
    for name, array in (('hwc', grid), ('chw', np.moveaxis(grid, -1, 0))):
        np.save(tmp_path / f'{name}.npy', array)
        np.testing.assert_array_equal(
            modality.read(tmp_path / f'{name}.npy'), grid.astype(np.float32)
        )


def test_other_arrays_are_refused(tmp_path):
    read = MODALITIES['event_voxel5'].read
    path = tmp_path / 'x.npy'
    for array, text in (
        (np.zeros((8, 9, 3)), r'float64 \(8, 9, 3\); expected numbers \(H, W, 5\)'),
        (np.full((8, 9, 5), np.nan), 'no finite numbers'),
        (np.array([{}]), 'cannot be read as a .npy file'),
    ):
        np.save(path, array)
        with pytest.raises(SartmError, match=text):
            read(path)
    path.unlink()
    with pytest.raises(SartmError, match='does not exist'):
        read(path)


def test_a_damaged_array_is_read_or_refused(tmp_path):
    """Three bytes of the header, which is 128 bytes long, are replaced."""
    path = tmp_path / 'x.npy'
    np.save(path, np.zeros((8, 9, 5)))
    intact = path.read_bytes()
    errors = []
    for _ in range(500):
        damaged = np.frombuffer(intact, np.uint8).copy()
        damaged[rng.integers(0, 128, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            MODALITIES['event_voxel5'].read(path)
        except SartmError as error:
            errors.append(str(error))
    assert len(errors) > 400
    assert all(str(path) in error for error in errors)


# polarization


def polarised(angle: float, degree: float, brightness: float) -> list[float]:
    """Malus's law behind polarisers at 0, 45, 90 and 135 degrees."""
    return [
        brightness / 2 * (1 + degree * np.cos(2 * np.deg2rad(a - angle))) for a in (0, 45, 90, 135)
    ]


def write_angles(root: Path, columns: list[tuple[float, float, float]]) -> Path:
    """Images whose column c is light of the angle, degree and brightness of `columns[c]`."""
    values = np.rint([polarised(*column) for column in columns])  # [W, 4]
    for place, angle in enumerate(('0', '45', '90', '135')):
        row = np.repeat(values[None, :, place, None], 3, axis=2).astype(np.uint8)
        write(root / angle / 'a.png', np.repeat(row, 4, axis=0))
    return root / '0' / 'a.png'


def test_angle_and_degree_come_from_four_images(tmp_path):
    columns = [(a, d, 250.0) for a in (0, 30, 60, 90, 120, 170) for d in (0.1, 0.3, 0.45)]
    image = MODALITIES['polarization'].read(write_angles(tmp_path, columns))
    MODALITIES['polarization'].check(image)
    for (angle, degree, _), (cosine, sine, dolp) in zip(columns, image[0], strict=True):
        found = np.rad2deg(np.arctan2(sine - 127.5, cosine - 127.5)) / 2 % 180
        assert min(abs(found - angle), 180 - abs(found - angle)) < 2.5
        assert dolp / 255 == pytest.approx(2 * degree, abs=0.02)  # of half of S0
    full = MODALITIES['polarization'].read(write_angles(tmp_path, [(45, 1.0, 200.0)]))
    assert (full[..., 2] == 255).all()  # clipped
    dark = MODALITIES['polarization'].read(write_angles(tmp_path, [(45, 1.0, 0.0)]))
    assert (dark == [128, 128, 0]).all()


def test_differences_do_not_wrap_around(tmp_path):
    """Behind a polariser across the light a pixel is darker: as bytes, 10 - 240 would be 26."""
    image = MODALITIES['polarization'].read(write_angles(tmp_path, [(90, 0.9, 250.0)]))
    assert image[0, 0, 0] == 0  # cos 180 degrees
    assert abs(int(image[0, 0, 1]) - 127.5) < 3


def test_angle_and_degree_are_read_from_files(tmp_path):
    aolp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dolp = aolp[::-1].copy()
    for first, second in (
        ('x_aolp.png', 'x_dolp.png'),
        ('AoLP/x.png', 'DoLP/x.png'),
        ('aolp/1_aolp.png', 'dolp/1_dolp.png'),
    ):
        path = write(tmp_path / first, aolp)
        without = MODALITIES['polarization'].read(path)
        write(tmp_path / second, dolp)
        image = MODALITIES['polarization'].read(path)
        twice_angle = aolp / 255 * 2 * np.pi - np.pi
        np.testing.assert_allclose(image[..., 0], 127.5 + 127.5 * np.cos(twice_angle), atol=0.51)
        np.testing.assert_allclose(image[..., 1], 127.5 + 127.5 * np.sin(twice_angle), atol=0.51)
        np.testing.assert_array_equal(image[..., 2], dolp)
        assert not without[..., 2].any()
    with pytest.raises(SartmError, match='expected a file in one of the folders 0, 45, 90 and 135'):
        MODALITIES['polarization'].read(write(tmp_path / 'other' / 'x.png', aolp))
    # Of another suffix, and missing in a folder that has that of other frames.
    (tmp_path / 'DoLP/x.png').rename(tmp_path / 'DoLP/y.png')
    read = MODALITIES['polarization'].read
    with pytest.raises(SartmError, match=r'AoLP/x\.png has no DoLP: .*DoLP/x\.png does not exist'):
        read(tmp_path / 'AoLP/x.png')
    write(tmp_path / 'DoLP/x.TIF', dolp)
    np.testing.assert_array_equal(read(tmp_path / 'AoLP/x.png')[..., 2], dolp)
    write(tmp_path / 'x_dolp.png', dolp[:8])
    with pytest.raises(SartmError, match='differ in size'):
        MODALITIES['polarization'].read(tmp_path / 'x_aolp.png')


def test_a_mirror_turns_the_angle(tmp_path):
    """The camera that sees the mirrored scene measures 180 degrees minus the angle."""
    columns = [(20.0, 0.3, 250.0), (70.0, 0.2, 200.0), (150.0, 0.4, 250.0)]
    modality = MODALITIES['polarization']
    image = modality.read(write_angles(tmp_path / 'scene', columns))
    seen = [(180 - angle, degree, light) for angle, degree, light in reversed(columns)]
    expected = modality.read(write_angles(tmp_path / 'mirror', seen)).astype(int)
    assert np.abs(modality.mirror(image)[:, ::-1].astype(int) - expected).max() <= 3


def test_the_angle_is_shown_as_hue_and_the_degree_as_brightness():
    """Angles of 0, 60 and 120 degrees; 180 degrees are 0 again."""
    twice = 2 * np.deg2rad([[0, 60, 120, 180, 60]])
    image = encode(np.cos(twice), np.sin(twice), np.array([[1, 1, 1, 1, 0.5]]))
    shown = MODALITIES['polarization'].show(image)[0].astype(int)
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0], [0, 128, 0]]
    np.testing.assert_allclose(shown, expected, atol=10)


# light_field


def write_views(scene: Path, prefix: str = '') -> dict[str, np.ndarray]:
    views = {}
    for row, column in itertools.product(range(1, 10), range(1, 10)):
        view = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        views[f'{row}_{column}'] = view
        write(scene / f'{prefix}{row}_{column}.png', view)
    return views


@pytest.mark.parametrize('prefix', ['', 'scene_1_'])
def test_views_are_selected(tmp_path, prefix):
    views = write_views(tmp_path, prefix)
    image = MODALITIES['light_field_row'].read(tmp_path / f'{prefix}5_1.png')
    lf8 = ['5_1', '5_2', '5_3', '5_4', '5_6', '5_7', '5_8', '5_9']
    np.testing.assert_array_equal(image, np.dstack([views[name] for name in lf8]))
    np.testing.assert_array_equal(
        MODALITIES['light_field'].read(tmp_path / f'{prefix}1_5.png'), views['1_5']
    )
    mirrored = MODALITIES['light_field_row'].mirror(image)
    np.testing.assert_array_equal(mirrored, np.dstack([views[name] for name in reversed(lf8)]))
    (tmp_path / f'{prefix}5_4.png').unlink()
    with pytest.raises(SartmError, match=r'5_4\.png does not exist'):
        MODALITIES['light_field_row'].read(tmp_path / f'{prefix}5_1.png')
    write(tmp_path / f'{prefix}5_4.png', views['5_4'][:4])
    with pytest.raises(SartmError, match='differs in size'):
        MODALITIES['light_field_row'].read(tmp_path / f'{prefix}5_1.png')
    with pytest.raises(SartmError, match='is no view of a light field'):
        MODALITIES['light_field_row'].read(tmp_path / 'centre.png')


@pytest.mark.parametrize('name', SENSORS)
def test_noise_in_training_has_the_deviation_that_the_configuration_allows(name):
    modality = MODALITIES[name]
    blank = modality.blank(200, 200)
    middle = (12_000 if name == 'depth' else 128) * (blank.dtype.kind == 'u')
    image = modality.scale(np.full_like(blank, middle))
    unchanged = modality.photometric(image, DataConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(unchanged, image)
    deviations = []
    for seed in range(40):
        noisy = modality.photometric(
            image, DataConfig(sensor_noise=0.2), np.random.default_rng(seed)
        )
        assert noisy.dtype == image.dtype
        assert noisy.shape == image.shape
        difference = (noisy.astype(np.float32) - image).reshape(200 * 200, -1)
        deviations.append(difference.std(axis=0) / modality.std)
    # The deviation is drawn evenly from 0 to 0.2; 40 draws reach 0.15 and have a mean of 0.1.
    assert 0.15 < np.max(deviations) < 0.205
    assert np.mean(deviations) == pytest.approx(0.1, abs=0.03)


def test_noise_in_training_leaves_depth_without_a_reading():
    depth = np.array([[0, 2000], [9000, 0]], np.uint16)
    scaled = MODALITIES['depth'].scale(depth)
    noisy = MODALITIES['depth'].photometric(
        scaled, DataConfig(sensor_noise=1.0), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(noisy == scaled, depth == 0)
