"""The homography: its checks, its file, and the warp against OpenCV and against loops."""

from __future__ import annotations

import math
import os
import re

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from untrained_checkpoint import save_untrained

from sartm_model.data.transforms import warp, warp_matrix
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.registration.homography import check_homography, read_homography, write_homography

SIZES = [((48, 64), (48, 64)), ((32, 40), (60, 96)), ((64, 80), (45, 50)), ((40, 30), (36, 90))]


def projective(rng, thermal_size, rgb_size) -> np.ndarray:
    """A matrix with rotation and perspective that maps thermal to most of the RGB image."""
    (h, w), (height, width) = thermal_size, rgb_size
    corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], np.float32)
    wanted = corners * [width / w, height / h]
    wanted += rng.uniform(-0.12, 0.12, (4, 2)) * [width, height]
    return cv2.getPerspectiveTransform(corners, wanted.astype(np.float32))


def smooth(rng, size) -> np.ndarray:
    return cv2.GaussianBlur(rng.normal(size=size).astype(np.float32) * 10, (0, 0), 3)


def warped_by(image: torch.Tensor, homography: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    matrix = torch.from_numpy(warp_matrix(homography, *image.shape[-2:]))
    return warp(image, matrix, size)


@pytest.mark.parametrize(('thermal_size', 'rgb_size'), SIZES)
def test_warp_agrees_with_opencv(thermal_size, rgb_size):
    rng = np.random.default_rng(sum(rgb_size))
    for _ in range(5):
        matrix = projective(rng, thermal_size, rgb_size)
        image = smooth(rng, thermal_size)
        expected = cv2.warpPerspective(image, matrix, rgb_size[::-1], flags=cv2.INTER_LINEAR)
        warped = warped_by(torch.from_numpy(image)[None, None], matrix, rgb_size)
        assert warped.shape == (1, 1, *rgb_size)
        # OpenCV rounds places to 1/32 of a pixel in some releases.
        steepest = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
        difference = np.abs(warped[0, 0].numpy() - expected)
        inside = cv2.erode(cv2.warpPerspective(np.ones_like(image), matrix, rgb_size[::-1]), None)
        assert difference[inside == 1].max() <= steepest / 16
        assert (inside == 1).mean() > 0.4


def test_warp_agrees_with_the_definition():
    """Pixel by pixel in double precision, at a size where float32 could lose a fraction of one."""
    rng = np.random.default_rng(3)
    thermal_size, rgb_size = (500, 640), (1080, 1920)
    matrix = projective(rng, thermal_size, rgb_size)
    image = smooth(rng, thermal_size)
    warped = warped_by(torch.from_numpy(image)[None, None], matrix, rgb_size)[0, 0].numpy()
    inverse = np.linalg.inv(matrix)
    met = 0
    for _ in range(300):
        v, u = rng.integers(rgb_size[0]), rng.integers(rgb_size[1])
        x, y, w = inverse @ (u, v, 1)
        x, y = x / w, y / w
        left, top = math.floor(x), math.floor(y)
        if not (0 <= left < thermal_size[1] - 1 and 0 <= top < thermal_size[0] - 1):
            continue
        a, b = x - left, y - top
        expected = (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1])
        expected += b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
        assert warped[v, u] == pytest.approx(expected, abs=2e-3)
        met += 1
    assert met > 100


def test_a_shift_moves_whole_pixels_and_leaves_the_mean_behind():
    image = torch.arange(1, 13, dtype=torch.float32).view(1, 1, 3, 4)
    shift = np.array([[1, 0, 2], [0, 1, -1], [0, 0, 1]], float)
    expected = torch.tensor([[0, 0, 5, 6, 7], [0, 0, 9, 10, 11], [0, 0, 0, 0, 0.0]])
    torch.testing.assert_close(warped_by(image, shift, (3, 5))[0, 0], expected)


def test_a_scale_about_pixel_centres_is_what_resizing_does():
    image = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    doubled = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    warped = warped_by(image, doubled, (24, 20))
    expected = F.interpolate(image, (24, 20), mode='bilinear', align_corners=False)
    torch.testing.assert_close(warped[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


# Checks and file ----------------------------------------------------------------------------------


def test_any_multiple_is_the_same_homography():
    matrix = projective(np.random.default_rng(0), (48, 64), (96, 90))
    for factor in (1.0, -0.2, 1e6):
        found = check_homography((matrix * factor).ravel(), (96, 90))
        np.testing.assert_allclose(found, matrix)


@pytest.mark.parametrize(
    'matrix',
    [
        [[0.1, 0, 4000], [0, 0.1, 3000], [0, 0, 1]],
        [[25, 0, -8000], [0, 25, -6000], [0, 0, 1]],
        [[0, -1, 479], [1, 0, 0], [0, 0, 1]],
        [[1.2, 0.1, 30], [-0.1, 1.3, 20], [1e-4, -2e-4, 1]],
    ],
)
def test_what_cameras_do_is_taken(matrix):
    np.testing.assert_array_equal(check_homography(np.array(matrix), (480, 640)), matrix)


def test_the_file_keeps_every_digit(tmp_path):
    matrix = np.array([[1.0 / 3, 1e-20, 320], [-2e-7, 1.5, 1e5], [1e-5, -0.25e-4, 1]])
    path = tmp_path / 'homography.yaml'
    write_homography(path, matrix, ['a note', 'another'])
    np.testing.assert_array_equal(read_homography(path), matrix)
    assert path.read_text().startswith('# a note\n# another\n')


def test_the_file_is_a_parameter_file_of_ros(tmp_path):
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from sartm_ros.settings import ros_parameters
    from sartm_ros.settings.parameters import homography

    matrix = np.array([[1.0 / 3, 1e-20, 320], [-2e-7, 1.5, 1e5], [1e-5, -0.25e-4, 1]])
    path = tmp_path / 'homography.yaml'
    write_homography(path, matrix, [])
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(path)], context=context)
    try:
        node = rclpy.create_node('sartm', context=context)
        ros_parameters.declare(node)
        np.testing.assert_array_equal(homography(ros_parameters.read(node)), matrix)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('a: [', 'not a YAML file'),
        ('{}', '0 entries'),
        ('thermal.homography: 3', '1 numbers'),
        ('thermal: {homography: [a, b]}', 'thermal.homography: '),
        ('thermal.homography: [0, 1, 0, 1, 0, 0, 0, 0, 1]', 'mirrors'),
        ('a: {thermal.homography: [1]}\nb: {thermal.homography: [1]}', '2 entries'),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, fault):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(SartmError, match=f'{re.escape(str(path))}.*{fault}'):
        read_homography(path)


# In the predictor ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('homography') / 'nano.safetensors')


def test_labels_follow_a_hot_square(checkpoint):
    """A thermal image of another size gives the same labels with a homography as an aligned one."""
    rng = np.random.default_rng(4)
    rgb = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    thermal = np.full((40, 50), 115, np.uint8)
    thermal[10:20, 15:30] = 240
    aligned = np.full((64, 96), 115, np.uint8)
    aligned[10 + 7 : 20 + 7, 15 + 33 : 30 + 33] = 240
    mean_is_115 = ThermalSettings('fixed', 0, 115 / MODALITIES['thermal'].mean[0])
    predictor = Predictor(checkpoint, device='cpu', thermal_settings=mean_is_115)
    expected = predictor.predict(rgb, aligned, confidence=True)
    predictor.homography = np.array([[1, 0, 33], [0, 1, 7], [0, 0, 1]])
    found = predictor.predict(rgb, thermal, confidence=True)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.confidence.astype(int), expected.confidence, atol=1)
    predictor.homography = None
    resized = predictor.predict(rgb, thermal, confidence=True)
    assert np.abs(resized.confidence.astype(int) - expected.confidence).max() > 4


def test_percentiles_are_those_of_the_whole_thermal_image(checkpoint):
    """Pixels outside of the warped image still count for the thermal range."""
    rgb = np.random.default_rng(5).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    thermal = np.random.default_rng(6).integers(0, 120, (64, 192), dtype=np.uint8)
    thermal[:, 96:] += 130
    limits = np.percentile(thermal[::4, ::4], (1, 99))
    left = np.diag((1.0, 1.0, 1.0 + 1e-12))  # the left half covers the RGB image
    auto = Predictor(checkpoint, device='cpu', homography=left)
    fixed = Predictor(checkpoint, device='cpu', thermal_settings=ThermalSettings('fixed', *limits))
    expected = fixed.predict(rgb, thermal[:, :96], confidence=True)
    found = auto.predict(rgb, thermal, confidence=True)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_homography_that_does_not_go_with_the_image(checkpoint):
    predictor = Predictor(checkpoint, device='cpu')
    predictor.homography = np.array([[1, 0, 0], [0, 1, 0], [0.02, 0, 1]])  # u stays below 50
    rgb, thermal = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8)
    with pytest.raises(SartmError, match=r'64x32.*horizon'):
        predictor.predict(rgb, thermal)
    assert predictor.predict(rgb[:, :32], thermal).labels.shape == (32, 32)
    assert predictor.predict(None, thermal).labels.shape == (32, 64)
    with pytest.raises(SartmError, match='no inverse'):
        predictor.homography = np.diag((1, 0, 1))
