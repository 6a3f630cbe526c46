"""Which pixels of thermal images see nothing, and what everything else makes of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sartm_model.config import DataConfig
from sartm_model.data.augmentation import random_resized_crop
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_range import MEAN, percentile_range, scale_thermal
from sartm_model.modalities.thermal_settings import ThermalSettings, crop_image
from sartm_model.modalities.thermal_valid import GROWTH, invalid_pixels

SIZE = (120, 160)
BORDER = 6


def scene(dtype=np.uint16, size=SIZE, seed=0) -> np.ndarray:
    """Counts of a ramp and a warm box with noise: 29000 to about 30600, or 60 to about 190."""
    rng = np.random.default_rng(seed)
    counts = np.add.outer(np.linspace(0, 400, size[0]), np.linspace(0, 400, size[1]))
    counts[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] += 800
    counts += rng.normal(0, 10, size)
    return (29000 + counts if dtype == np.uint16 else 60 + counts / 12).round().astype(dtype)


def invalid(image: np.ndarray, values: tuple[int, ...] = ()) -> np.ndarray:
    return invalid_pixels(image.astype(np.float32), image.dtype == np.uint8, values)


def inside(size=SIZE, border=BORDER) -> np.ndarray:
    """A mask of the pixels within a border."""
    mask = np.zeros(size, bool)
    mask[border:-border, border:-border] = True
    return mask


def grown(mask: np.ndarray) -> np.ndarray:
    kernel = np.ones((2 * GROWTH + 1,) * 2, np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def rotated(size=SIZE) -> np.ndarray:
    """A mask of an image that was rotated by 5 degrees."""
    turn = cv2.getRotationMatrix2D((size[1] / 2, size[0] / 2), 5, 1)
    return cv2.warpAffine(np.ones(size, np.uint8), turn, size[::-1], flags=cv2.INTER_NEAREST) > 0


def round_view(size=SIZE) -> np.ndarray:
    rows, columns = np.indices(size)
    return np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.55 * size[1]


def bars(size=SIZE) -> np.ndarray:
    mask = np.ones(size, bool)
    mask[:10] = mask[-10:] = False
    return mask


def bent(size=SIZE) -> np.ndarray:
    """A mask whose border is wider in the middle of each edge than in its corners."""
    rows, columns = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])
    within = (1 - np.abs(rows)) * size[0] / 2 > 3 + 12 * (1 - np.abs(columns))
    return within & ((1 - np.abs(columns)) * size[1] / 2 > 3 + 12 * (1 - np.abs(rows)))


SHAPES = {'ring': inside, 'rotated': rotated, 'round': round_view, 'bars': bars, 'bent': bent}


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('fill', [0, 65535, 20000])
def test_a_border_of_any_count_is_invalid_with_what_a_warp_mixes_it_into(shape, fill):
    valid = SHAPES[shape]()
    image = np.where(valid, scene(), fill).astype(np.uint16)
    np.testing.assert_array_equal(invalid(image), grown(~valid))


def test_four_corners_of_one_count_are_a_border():
    corners = np.zeros(SIZE, bool)
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    image = np.where(corners, 255, scene(np.uint8)).astype(np.uint8)
    np.testing.assert_array_equal(invalid(image), grown(corners))


def test_a_border_is_found_around_negative_counts_too():
    valid = inside()
    image = np.where(valid, scene(), 20000).astype(np.float32)
    expected = invalid_pixels(image, False)
    assert expected.any()
    np.testing.assert_array_equal(invalid_pixels(image - 70000, False), expected)


def shifted(size=SIZE) -> np.ndarray:
    """A mask of an image that was moved up and to the right."""
    mask = np.ones(size, bool)
    mask[-7:] = mask[:, :10] = False
    return mask


@pytest.mark.parametrize('edges', ['left', 'right', 'lower', 'left and lower'])
@pytest.mark.parametrize('fill', [0, 1, 20000, 60000])
def test_one_uniform_edge_of_a_16_bit_image_is_a_border_if_it_is_not_the_upper_one(edges, fill):
    valid = shifted()
    if edges != 'left and lower':
        valid = np.ones(SIZE, bool)
        part = {'left': np.s_[:, :10], 'right': np.s_[:, -10:], 'lower': np.s_[-7:]}[edges]
        valid[part] = False
    image = np.where(valid, scene(), fill).astype(np.uint16)
    np.testing.assert_array_equal(invalid(image), grown(~valid))
    sky = scene()
    sky[:40] = 20000
    assert not invalid(sky).any()
    assert not invalid(np.where(valid, scene(np.uint8), 0).astype(np.uint8)).any()


@pytest.mark.parametrize('shape', ['ring', 'bars'])
def test_black_at_two_opposite_edges_of_an_8_bit_image_is_a_border_and_other_black_is_not(shape):
    """As of a camera with automatic gain control: black and white occur in the scene too."""
    valid = SHAPES[shape]()
    image = cv2.normalize(scene(np.uint8), None, 0, 255, cv2.NORM_MINMAX).astype(np.int16)
    image = (image + 20 - 40 * (image < 60)).clip(0, 255).astype(np.uint8)
    image[50:60, 70:90] = 0
    assert not invalid(image).any()
    image[~valid] = 0
    found = invalid(image)
    assert found[~valid].all()
    assert not found[20:-20, 20:-20].any()


def test_what_scenes_have_in_saturation_is_valid():
    """A sky of 0, a hot object of 255 and 65535, images scaled from 0 to the greatest count."""
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        stretched = cv2.normalize(scene(dtype).astype(np.float32), None, 0, top, cv2.NORM_MINMAX)
        for low, high in ((0, 1), (0.2, 1), (0, 0.8), (0.3, 0.6)):
            image = ((stretched / top - low) / (high - low)).clip(0, 1) * top
            assert not invalid(image.astype(dtype)).any(), (dtype, low, high)
    sky = scene(np.uint8)
    sky[:40] = 0  # the upper third: three of four edges
    assert not invalid(sky).any()


def test_the_background_of_a_simulation_is_valid():
    """Without noise: sky and ground of one temperature, and warmer objects."""
    image = np.full(SIZE, 28815, np.uint16)
    image[60:100, 40:60] = 31015
    image[50:110, 100:140] = 30015
    assert not invalid(image).any()
    image[-25:] = 29515  # the ground
    assert not invalid(image).any()


@pytest.mark.parametrize('value', [0, 1000, 65535])
def test_a_uniform_image_has_no_border(value):
    assert not invalid(np.full(SIZE, value, np.uint16)).any()


def test_fill_inside_16_bit_images_and_listed_counts():
    image = scene()
    image[20:40, 30:60] = 0
    image[80:100, 30:60] = 65535
    image[60, 100] = 12345
    expected = (image == 0) | (image == 65535)
    np.testing.assert_array_equal(invalid(image), grown(expected))
    np.testing.assert_array_equal(invalid(image, (12345,)), grown(expected | (image == 12345)))


def random_image(rng: np.random.Generator) -> np.ndarray:
    """A small scene or a uniform area with some borders, edges, patches and pixels of fill."""
    dtype = rng.choice([np.uint8, np.uint16])
    top = np.iinfo(dtype).max
    size = tuple(rng.integers(1, 60, 2))
    fills = [0, top, 7, rng.integers(0, top)]
    image = rng.integers(0, top // 2) + rng.integers(0, 2 + top // rng.integers(2, 300), size)
    if rng.random() < 0.2:
        image[:] = rng.choice(fills)
    for _ in range(rng.integers(0, 4)):
        rows, columns = (int(rng.integers(1, length // 3 + 2)) for length in size)
        y, x = (int(rng.integers(0, length)) for length in size)
        parts = [np.s_[:rows], np.s_[-rows:], np.s_[:, :columns], np.s_[:, -columns:]]
        parts += [np.s_[y : y + rows, x : x + columns], np.s_[[0, 0, -1, -1], [0, -1, 0, -1]]]
        parts += [rng.random(size) < 0.02]
        chosen = [parts[:4], parts[:2], parts[2:4], *([part] for part in parts)]
        fill = rng.choice(fills)
        for part in chosen[rng.integers(len(chosen))]:
            image[part] = fill
    return image.astype(dtype)


def by_description(image: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Which pixels are invalid, rule by rule."""
    (height, width), eight_bits = image.shape, image.dtype == np.uint8
    counts = image.astype(int)
    corners = {counts[y, x] for y in (0, -1) for x in (0, -1)}
    middles = {counts[y, width // 2] for y in (0, -1)} | {counts[height // 2, x] for x in (0, -1)}
    is_around = len(corners) == 1 or len(middles) == 1
    border = counts[0, 0] if len(corners) == 1 else counts[0, width // 2]
    is_edge = False
    if not is_around and not eight_bits:
        for edge in (counts[::-1, -1], counts[::-1, 0], counts[-1]):
            if len(set(edge)) == 1:
                is_edge, border = True, edge[0]
    step = max(1, round((height * width / 1200) ** 0.5))
    grid = counts[::step, ::step].ravel()
    candidates = {border, *values, *(() if eight_bits else (0, 65535))}
    others = sorted(count for count in grid if count not in candidates)
    low, median, high = (others[len(others) * n // 4] if others else 0 for n in (1, 2, 3))
    flat = 2 if eight_bits else 16

    def is_apart(count: int, distance: int = 4) -> bool:
        return bool(others) and abs(median - count) > distance * max(high - low, flat)

    share = {count: np.mean(grid == count) for count in candidates}
    rows, columns = counts[[0, -1]], counts[:, [0, -1]]
    fills_opposite = (rows == border).all() or (columns == border).all()
    has_border = is_around and (is_apart(border) or fills_opposite) and share[border] <= 0.5
    has_border |= is_edge and is_apart(border) and high - low >= flat and share[border] <= 0.25
    found = np.isin(counts, values)
    if not eight_bits:
        found |= (counts == 0) & is_apart(0)
        found |= (counts == 65535) & (is_apart(65535, 20) and share[65535] >= 0.005)
    if has_border:
        same = counts == border
        for turned, marked in ((same, found), (same.T, found.T)):
            for way in (1, -1):
                marked[::way] |= np.logical_and.accumulate(turned[::way])
    return grown(found)


@pytest.mark.parametrize('seed', range(20))
def test_arrays_and_tensors_are_examined_as_the_description_says(monkeypatch, seed):
    """Tensors by the operations that a CUDA graph and an exported file have."""
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(20)]
    if seed == 0:
        images += [scene(), scene(np.uint8), np.where(round_view(), scene(), 0).astype(np.uint16)]
        images += [np.where(inside(), scene(np.uint8), 0).astype(np.uint8), scene(size=(7, 5))]
        images += [np.where(shifted(), scene(), 20000).astype(np.uint16)]
        images += [np.zeros(SIZE, np.uint16), np.full(SIZE, 65535, np.uint16)]
    for image in images:
        values = tuple(int(count) for count in rng.choice(image.ravel(), rng.integers(0, 3)))
        expected = by_description(image, values)
        np.testing.assert_array_equal(invalid(image, values), expected)
        counts = torch.from_numpy(image.astype(np.float32))
        found = invalid_pixels(counts, image.dtype == np.uint8, values)
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize('valid', [0, 1, 2, 3, 70, 199, 200])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_the_range_is_the_quantiles_of_the_valid_counts(valid, dtype):
    rng = np.random.default_rng(valid)
    counts = rng.integers(0, 256 if dtype == np.uint8 else 60000, 200).astype(dtype)
    left_out = np.ones(200, bool)
    left_out[rng.permutation(200)[:valid]] = False
    found = percentile_range(torch.from_numpy(counts), torch.from_numpy(left_out)).numpy()
    expected = np.quantile(counts[~left_out], (0.01, 0.99)) if valid else [np.nan] * 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('fixed', [None, (29000.0, 30000.0)])
def test_the_network_sees_the_scene_as_without_a_border_and_the_mean_in_its_place(fixed):
    image, valid = scene(), inside()
    bordered = np.where(valid, image, 0).astype(np.uint16)
    seen = ~grown(~valid)
    limits = fixed
    if fixed is None:
        sample = image[::4, ::4][seen[::4, ::4]]
        limits = np.quantile(sample, (0.01, 0.99))
    expected = np.where(seen, ((image - limits[0]) / (limits[1] - limits[0])).clip(-1, 2), MEAN)
    for kind in (bordered, torch.from_numpy(bordered)):
        np.testing.assert_allclose(np.asarray(scale_thermal(kind, fixed)), expected, atol=1e-4)


def test_black_hot_is_the_negative():
    image = scene(np.uint8)
    for limits in (None, (50.0, 200.0)):
        negative = None if limits is None else tuple(255 - limit for limit in reversed(limits))
        expected = scale_thermal(255 - image, negative)
        np.testing.assert_allclose(
            scale_thermal(image, limits, black_hot=True), expected, atol=1e-5
        )


def holes(size=SIZE) -> np.ndarray:
    """A mask without a block and without some single pixels."""
    mask = np.random.default_rng(0).random(size) > 0.002
    mask[30:60, 40:90] = False
    return mask


@pytest.mark.parametrize('factor', [0.6, 1.5, 2, 4])
@pytest.mark.parametrize('view', [inside, rotated, holes])
@pytest.mark.parametrize('fill', [0, 65535])
def test_an_image_that_is_resized_first_is_scaled_as_one_that_is_resized_last(view, factor, fill):
    """A data set resizes raw images, and a predictor scaled ones."""
    image = np.where(view(), scene(), fill).astype(np.uint16)
    height, width = (round(factor * side) for side in SIZE)
    resized = MODALITIES['thermal'].resize(image, height, width)
    assert resized.dtype == np.uint16
    expected = cv2.resize(scale_thermal(image), (width, height))
    assert np.abs(scale_thermal(resized) - expected).mean() < 0.03


def test_an_image_of_the_same_size_keeps_its_fill_and_what_it_sees():
    """Between them is what is neither, the pixels that a warp mixes."""
    fill = ~holes()
    image = np.where(fill, 0, scene()).astype(np.uint16)
    resized = MODALITIES['thermal'].resize(image, *SIZE)
    np.testing.assert_array_equal(resized[~grown(fill)], image[~grown(fill)])
    np.testing.assert_array_equal(resized == 0, fill)


def test_without_fill_resizing_is_linear():
    for dtype in (np.uint8, np.uint16):
        resized = MODALITIES['thermal'].resize(scene(dtype), 200, 300)
        np.testing.assert_array_equal(resized, cv2.resize(scene(dtype), (300, 200)))


@pytest.mark.parametrize('severity', [1, 5])
def test_noise_is_relative_to_what_the_image_sees_and_leaves_fill_alone(severity):
    valid = rotated()
    image = np.where(valid, scene(), 0).astype(np.uint16)
    corrupt = MODALITIES['thermal'].corruptions['noise']
    noisy = corrupt(image, severity, np.random.default_rng(0), lambda n: image)
    low, high = np.quantile(scene()[valid], (0.01, 0.99))
    seen = ~grown(~valid)
    deviation = (noisy.astype(float) - image)[seen].std()
    assert deviation == pytest.approx(
        (0.03, 0.06, 0.12, 0.2, 0.3)[severity - 1] * (high - low), rel=0.1
    )
    np.testing.assert_array_equal(noisy[~valid], 0)
    np.testing.assert_array_equal(invalid(noisy), grown(~valid))
    empty = np.zeros(SIZE, np.uint16)
    empty[::16, ::16] = 30000  # each beside fill, so that nothing is valid
    np.testing.assert_array_equal(
        corrupt(empty, 5, np.random.default_rng(0), lambda n: empty), empty
    )


def test_training_crops_have_the_mean_where_the_image_sees_nothing():
    image = np.where(inside(), scene(), 0).astype(np.uint16)
    frame = Frame('x', {'thermal': image}, np.zeros(SIZE, np.uint8))
    config = DataConfig(crop_height=SIZE[0], crop_width=SIZE[1], scale_min=1, scale_max=1)
    crop = random_resized_crop(frame, config, np.random.default_rng(0), None)
    scaled = crop.images['thermal']
    corner = np.full((BORDER, BORDER), MEAN)
    for part in (scaled[:BORDER, :BORDER], scaled[-BORDER:, -BORDER:]):
        np.testing.assert_allclose(part, corner, atol=1e-3)
    assert scaled.min() > -0.2
    assert scaled.max() > 0.9


def test_a_training_crop_of_single_pixels_in_fill_is_the_mean_as_in_inference():
    """Each of them is beside fill, so no pixel is valid, and the image has no range of its own."""
    image = np.zeros((64, 80), np.uint16)
    image[8::16, 8::16] = 30000
    assert invalid_pixels(image.astype(np.float32), eight_bits=False).all()
    frame = Frame('x', {'thermal': image}, np.zeros(image.shape, np.uint8))
    config = DataConfig(crop_height=64, crop_width=80, scale_min=1, scale_max=1)
    crop = random_resized_crop(frame, config, np.random.default_rng(0), None)
    np.testing.assert_allclose(crop.images['thermal'], MEAN, atol=1e-6)
    np.testing.assert_allclose(scale_thermal(image), MEAN)


def test_an_image_that_sees_nothing_at_all():
    image = np.full(SIZE, 7, np.uint16)
    for kind in (image, torch.from_numpy(image)):
        np.testing.assert_allclose(np.asarray(scale_thermal(kind, invalid_values=(7,))), MEAN)


def test_pictures_show_the_scene_within_a_border():
    valid = inside()
    shown = MODALITIES['thermal'].show(np.where(valid, scene(), 0).astype(np.uint16))
    plain = MODALITIES['thermal'].show(scene())
    seen = ~grown(~valid)
    assert np.abs(shown[seen].astype(int) - plain[seen]).mean() < 15


def test_pictures_are_black_for_cold_and_yellow_for_hot():
    ramp = np.linspace(29000, 30000, 64 * 64).reshape(64, 64).astype(np.uint16)
    shown = MODALITIES['thermal'].show(ramp).astype(int)
    assert shown[0, 0].max() < 20
    red, green, blue = shown[-1, -1]
    assert min(red, green) > blue + 50


def test_ordinary_frames_of_real_cameras_are_valid(real_data):
    """Of MFNet and MSRS after gain control, and of a FLIR in 16 bits."""
    files = [*(real_data / 'thermal16').iterdir()]
    for folder in ('mfnet', 'night_sequence', 'unlabelled'):
        files += sorted((real_data / folder / 'thermal').iterdir())[::5]
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert not invalid(image if image.ndim == 2 else image[..., 0]).any(), file
    assert len(files) > 50


def test_the_crop_is_checked():
    image = scene(size=(122, 160))
    assert crop_image(image, (0, 0, 2, 0)).shape == (120, 160)
    np.testing.assert_array_equal(crop_image(image, (1, 2, 3, 4)), image[1:-3, 4:-2])
    with pytest.raises(SartmError, match=r'crop \[60, 0, 62, 0\] leaves nothing .*160x122'):
        crop_image(image, (60, 0, 62, 0))
    for crop in ((0, 0, 2), (0, 0, -1, 0), (0, 0, 0.5, 0)):
        with pytest.raises(SartmError, match='thermal crop'):
            ThermalSettings(crop=crop)
    assert ThermalSettings(invalid=(65535,)).invalid == (65535,)
    for value in (65536, float('nan'), float('inf')):
        with pytest.raises(SartmError, match='thermal invalid'):
            ThermalSettings(invalid=(value,))
    with pytest.raises(SartmError, match="polarity 'red_hot'"):
        ThermalSettings(polarity='red_hot')


def test_settings_name_what_is_not_default():
    assert ThermalSettings().describe() == 'percentile'
    lists = {'crop': [0, 0, 2, 0], 'invalid': [0.0]}  # as JSON and ROS give them
    settings = ThermalSettings('fixed', 1, 2, polarity='black_hot', **lists)
    assert settings.describe() == 'fixed 1 to 2, crop [0, 0, 2, 0], invalid [0], black_hot'
