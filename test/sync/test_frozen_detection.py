"""When a thermal image that stays is frozen, and when nothing moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sartm_ros.sync.frozen_detection import (
    FrozenDetector,
    differs_by_noise,
    has_moved,
    view_parts,
)

MS = 1_000_000
AFTER = 300 * MS
SIZE = (96, 128)


def smooth(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A blurred random pattern of 0 to 255."""
    pattern = np.random.default_rng(seed).random(size, np.float32)
    return cv2.normalize(cv2.GaussianBlur(pattern, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


WORLD = smooth(0, (96, 400))
COLOURS = np.stack([smooth(seed, (96, 400)) for seed in (1, 2, 3)], axis=-1)


def thermal(position: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """The world from a position, 16 bits, with noise of a standard deviation in counts."""
    counts = 7000 + 4 * WORLD[:, position : position + SIZE[1]]
    noisy = counts + noise * np.random.default_rng(seed).standard_normal(SIZE)
    return np.rint(noisy).astype(np.uint16)


def rgb(position: int, seed: int = 0, gain: float = 0.8) -> np.ndarray:
    colours = gain * COLOURS[:, position : position + SIZE[1]]
    noise = 5 * np.random.default_rng(seed).standard_normal(colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8)


def run(detector: FrozenDetector, pairs, start_ms: int = 0, interval_ms: int = 33) -> list[bool]:
    return [
        detector.update(image, colours, (start_ms + index * interval_ms) * MS, AFTER)
        for index, (image, colours) in enumerate(pairs)
    ]


def parked(count: int, noise: float = 0.0, first: int = 0):
    """The robot stands; RGB has noise, and thermal as given."""
    return [(thermal(0, noise, first + i), rgb(0, first + i)) for i in range(count)]


def moving(count: int, noise: float = 0.0):
    return [(thermal(4 * i, noise, i), rgb(4 * i, i)) for i in range(count)]


def frozen(count: int, noise: int = 0):
    """The robot moves on, and thermal repeats an image with noise of up to `noise` counts."""
    rng = np.random.default_rng(9)
    return [
        (thermal(100) + rng.integers(0, noise + 1, SIZE).astype(np.uint16), rgb(100 + 4 * i, i))
        for i in range(count)
    ]


@pytest.mark.parametrize('noise', [0.0, 2.0])
def test_a_robot_that_stands_or_moves_has_no_frozen_camera(noise):
    """A simulation without noise, and a camera with noise."""
    detector = FrozenDetector()
    pairs = parked(60, noise) + moving(25, noise) + parked(60, noise, first=100)
    assert not any(run(detector, pairs))


@pytest.mark.parametrize('noise', [0, 1])
def test_an_image_that_stays_while_rgb_moves_is_frozen(noise):
    """Without noise, or with that of a frame grabber, of a camera that was never seen still."""
    found = run(FrozenDetector(), moving(25) + frozen(20, noise))
    assert not any(found[:30])
    assert all(found[36:])  # 300 ms are ten images


def test_identical_images_of_a_camera_with_noise_are_frozen_in_the_dark_too():
    dark = [(image, np.zeros_like(colours)) for image, colours in parked(20, 2.0)]
    found = run(FrozenDetector(), [*dark, *[dark[-1]] * 15])
    assert found == [False] * 29 + [True] * 6  # the first of the equal images is number 19


@pytest.mark.parametrize('buffers', [2, 3, 4])
def test_old_buffers_that_come_in_turn_are_frozen(buffers):
    dark = [(image, np.zeros_like(colours)) for image, colours in parked(20, 2.0)]
    found = run(FrozenDetector(), [*dark, *(dark[-buffers:] * 8)[:15]])
    assert found == [False] * 29 + [True] * 6


def test_something_that_blinks_in_a_simulation_is_not_frozen():
    lamp = thermal(0)
    lamp[30:40, 50:60] += 2000
    pairs = [((lamp, thermal(0))[i // 3 % 2], rgb(0, i)) for i in range(60)]
    assert not any(run(FrozenDetector(), pairs))


def test_without_noise_and_in_the_dark_it_cannot_be_known():
    dark = [(thermal(0), np.zeros((*SIZE, 3), np.uint8))] * 60
    assert not any(run(FrozenDetector(), dark))
    assert not any(run(FrozenDetector(), [(thermal(0), None)] * 60))


def test_light_that_is_switched_on_moves_nothing():
    lit = [(thermal(0), rgb(0, i, gain=0.3 if i // 5 % 2 else 0.9)) for i in range(60)]
    assert not any(run(FrozenDetector(), lit))


def dark(seed: int) -> np.ndarray:
    """RGB of a room without light: noise of one count, around two."""
    noise = np.random.default_rng(seed).standard_normal((*SIZE, 3))
    return np.rint(2 + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('first_lit', [False, True])
@pytest.mark.parametrize('noise', [0.0, 2.0])
def test_light_in_the_dark_moves_nothing(noise, first_lit):
    """A parked robot; the light is switched on, or off, for good."""
    lit = [(i < 20) == first_lit for i in range(60)]
    pairs = [(thermal(0, noise, i), rgb(0, i) if lit[i] else dark(i)) for i in range(60)]
    assert not any(run(FrozenDetector(), pairs))


def test_a_frozen_camera_is_found_once_there_is_light():
    pairs = [(thermal(0), dark(i)) for i in range(20)]
    pairs += [(thermal(0), rgb(4 * i, i)) for i in range(25)]
    found = run(FrozenDetector(), pairs)
    assert not any(found[:25])
    assert all(found[35:])


@pytest.mark.parametrize('unseen', [dark(0), None])
def test_a_frozen_camera_stays_so_in_the_dark_and_without_rgb(unseen):
    """A change by the noise of a frame grabber is none, and another image ends it at once."""
    detector = FrozenDetector()
    images = frozen(40, 1)
    assert run(detector, moving(25) + images[:20])[-1]
    later = [(image, unseen) for image, _ in images[20:]]
    assert all(run(detector, later, start_ms=45 * 33))
    assert not detector.update(thermal(200), unseen, 65 * 33 * MS, AFTER)


def test_a_slower_thermal_camera_is_not_frozen_when_the_robot_starts():
    """9 Hz beside 30 Hz: the first images after the start show the place where it stood."""
    started = [(thermal(4 * (i // 3)), rgb(4 * i, i)) for i in range(25)]
    assert not any(run(FrozenDetector(), parked(60) + started))


def test_a_camera_that_recovers_is_live_at_once():
    detector = FrozenDetector()
    assert run(detector, moving(10) + frozen(20))[-1]
    assert not detector.update(thermal(200), rgb(200), 40 * 33 * MS, AFTER)


def test_noise_is_told_from_motion():
    for sigma in (0.4, 1, 5, 20):
        assert differs_by_noise(thermal(0, sigma, 1), thermal(0, sigma, 2)), sigma
    for shift in (1, 2, 10, 50):
        assert not differs_by_noise(thermal(shift), thermal(0)), shift
        assert not differs_by_noise(thermal(shift, 0.5, 1), thermal(0, 0.5, 2)), shift
    passer_by = thermal(0)
    passer_by[30:70, 40:50] += 500
    assert not differs_by_noise(passer_by, thermal(0))


@pytest.mark.parametrize(('parts', 'is_noise'), [(32, False), (58, True)])
def test_noise_changes_most_parts_of_the_view(parts, is_noise):
    """By one count up or down, in a half or in 90 % of 8x8 parts."""
    rng = np.random.default_rng(0)
    still = (7000 + 4 * smooth(0, (128, 128))).astype(np.uint16)
    changed = np.kron(rng.permutation(64).reshape(8, 8) < parts, np.ones((16, 16), int))
    image = (still + changed * rng.choice([-1, 1], still.shape)).astype(np.uint16)
    assert differs_by_noise(image, still) == is_noise


@pytest.mark.parametrize('count', [3, 4])
def test_a_view_needs_four_parts_with_texture(count):
    image = np.full((8, 6, 8, 8, 3), 100, np.uint8)  # 8x8 parts of 6x8 pixels
    for place in range(count):
        image[2 * place, :, 7 - place] += np.indices((6, 8, 3), np.uint8).sum(axis=0) % 2 * 50
    assert (view_parts(image.reshape(48, 64, 3)) is not None) == (count == 4)


@pytest.mark.parametrize('size', [(1, 1), (5, 300), (12, 16), (480, 640)])
def test_motion_in_images_of_any_size(size):
    rng = np.random.default_rng(0)
    a, b = (view_parts(rng.integers(0, 256, (*size, 3), np.uint8)) for _ in range(2))
    if size not in ((12, 16), (480, 640)):
        assert a is None  # too small to tell
        return
    assert not has_moved(a, a)
    assert has_moved(a, b)
    assert has_moved(a, view_parts(rng.integers(0, 256, (24, 16, 3), np.uint8)))  # another size
