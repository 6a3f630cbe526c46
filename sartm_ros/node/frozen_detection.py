"""Decides whether a thermal camera repeats an old image. No ROS import.

That an image equals the one before does not tell. A simulation without noise gives the same image
as long as nothing moves, and a frame grabber adds noise of its own to the image of an analogue
camera that has frozen. So the decision is made from two things that can be known:

- A camera has noise once two of its images differ in nearly every part of the view by small,
  unrelated amounts, as they do while nothing moves. From then on images that are identical for
  `stall_after` are frozen.
- RGB shows whether the view moves. Where it has moved and thermal has not changed, or only by
  noise, for `stall_after`, thermal is frozen, with noise or without.

While neither holds, nothing moves, and the image shows the scene as it is. A camera that freezes
while RGB sees nothing move, in the dark for example, is noticed if it was seen to have noise and
its frozen images are identical; else it cannot be known.
"""

from __future__ import annotations

import cv2
import numpy as np

ROW_STEP = 8
"""Noise is examined in every eighth row."""

PARTS = 8
"""The view is divided into so many columns and rows of parts."""

CHANGED_PARTS = 0.75
"""Share of the parts in which noise changes at least one pixel."""

NOISE_OF_CONTRAST = 0.5
NOISE_CORRELATION = 0.5
"""Noise is less than this part of the image's standard deviation, and that of neighbouring pixels
is correlated less than this. What moves changes neighbours alike, or by the image's contrast."""

PART_SIZE = (6, 8)
"""Rows and columns to which a part of an RGB image is reduced, which averages its noise."""

TEXTURE = 6.0
"""Standard deviation, in counts of 8 bits, from which a part of the view shows whether it moves."""

SAME_VIEW = 0.8
"""Correlation of a part with itself earlier, below which it has moved. Light that is switched on
changes the brightness of a part and not its pattern."""

MIN_TEXTURED = 4
"""Parts with texture that are needed to see motion."""


class FrozenDetector:
    """Follows the images of one thermal camera. Not thread-safe."""

    def __init__(self) -> None:
        self._has_noise = False
        self._last: tuple[np.ndarray, int] | None = None
        self._same_since_ns = 0  # stamp of the first image identical to the last one
        self._still: tuple[np.ndarray, np.ndarray | None] | None = None  # thermal and RGB, first
        self._unmoved_ns = 0  # stamp of the last pair whose RGB showed the view of the first one

    def update(
        self, image: np.ndarray, rgb: np.ndarray | None, stamp_ns: int, stall_after_ns: int
    ) -> bool:
        """Return whether the camera is frozen after a new image, which is not copied.

        Args:
            image: counts uint8 or uint16 `[h, w]`.
            rgb: the RGB image of the pair, uint8 `[H, W, 3]`, or None.
            stamp_ns: of the thermal image, nanoseconds; one image may serve several pairs.
            stall_after_ns: how long the image has to stay; some cameras send each image two or
                three times.
        """
        if self._last is None or stamp_ns < self._last[1] or not _comparable(image, self._last[0]):
            self._last = self._still = None
        is_same = self._last is not None and _equal(image, self._last[0])
        if not is_same:
            self._same_since_ns = stamp_ns
        self._last = image, stamp_ns
        if self._still is not None and not is_same:
            if differs_by_noise(image, self._still[0]):
                self._has_noise = True
            else:
                self._still = None
        if self._still is None:
            self._still, self._unmoved_ns = (image, rgb), stamp_ns
        elif rgb is None or self._still[1] is None or not has_moved(self._still[1], rgb):
            self._unmoved_ns = stamp_ns
        since_ns = self._same_since_ns if self._has_noise else stamp_ns
        return stamp_ns - min(since_ns, self._unmoved_ns) >= max(stall_after_ns, 1)

    @property
    def unchanged_since_ns(self) -> int:
        """Stamp of the first image that is identical to the last one."""
        return self._same_since_ns


def differs_by_noise(image: np.ndarray, earlier: np.ndarray) -> bool:
    """Return whether two images of the same size show the same, apart from noise of the camera."""
    new, old = (rows[::ROW_STEP].astype(np.float32) for rows in (image, earlier))
    change = new - old
    if np.mean([part.any() for part in _parts(change != 0)]) < CHANGED_PARTS:
        return False
    change -= change.mean()
    variance = np.square(change).mean()
    neighbours = (change[:, 1:] * change[:, :-1]).mean()
    return bool(
        variance < NOISE_OF_CONTRAST**2 * old.var() and neighbours < NOISE_CORRELATION * variance
    )


def has_moved(first: np.ndarray, now: np.ndarray) -> bool:
    """Return whether more than half of the textured parts of two RGB images differ in pattern."""
    if first.shape != now.shape:
        return True
    (height, width), (rows, columns) = first.shape[:2], PART_SIZE
    down, across = min(PARTS, height // rows), min(PARTS, width // columns)
    if down * across < MIN_TEXTURED:
        return False
    step = 2 if height >= 2 * down * rows and width >= 2 * across * columns else 1
    size = across * columns, down * rows
    reduced = [
        cv2.resize(image[::step, ::step, 1], size, interpolation=cv2.INTER_AREA)
        for image in (first, now)
    ]
    parts = np.reshape(reduced, (2, down, rows, across, columns)).astype(np.float32)
    parts -= parts.mean(axis=(2, 4), keepdims=True)
    deviations = parts.std(axis=(2, 4))  # [2, down, across]
    is_textured = deviations.max(axis=0) >= TEXTURE
    if np.count_nonzero(is_textured) < MIN_TEXTURED:
        return False
    scale = np.maximum(deviations[0] * deviations[1], 1e-6)
    correlations = (parts[0] * parts[1]).mean(axis=(1, 3)) / scale
    return float(np.median(correlations[is_textured])) < SAME_VIEW


def _parts(image: np.ndarray) -> list[np.ndarray]:
    """Divide an image into parts; fewer where it has fewer rows or columns."""
    rows = np.array_split(image, min(PARTS, image.shape[0]))
    return [p for row in rows for p in np.array_split(row, min(PARTS, image.shape[1]), axis=1)]


def _comparable(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    # The first pixels are enough for two different images, nearly always.
    return np.array_equal(a[::16, ::16], b[::16, ::16]) and np.array_equal(a, b)
