"""Decides whether a thermal camera repeats an old image. No ROS import.

That an image equals the one before does not tell. A simulation without noise gives the same image
as long as nothing moves, and a frame grabber adds noise of its own to the image of an analogue
camera that has frozen. So the decision is made from two things that can be known:

- A camera has noise once two of its images differ in nearly every part of the view by small,
  unrelated amounts, as they do while nothing moves. From then on images that are identical for
  `stall_after` are frozen, also a few old ones that come in turn, as from a driver that goes on
  through its buffers.
- RGB shows whether the view moves. Where it has moved and thermal has not changed, or only by
  noise, for `stall_after`, thermal is frozen, with noise or without. An RGB image without texture,
  as in the dark, is not compared: what the images before it showed still counts.

While neither holds, nothing moves, and the image shows the scene as it is. A camera that freezes
while RGB sees nothing move, in the dark for example, is noticed if it was seen to have noise and
its frozen images are identical; else it cannot be known.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

REMEMBERED = 4
"""Number of different images of which a repetition is noticed: as many buffers as drivers use."""

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
"""Number of parts with texture that an RGB image must have to be compared with others."""


class FrozenDetector:
    """Follows the images of one thermal camera. Not thread-safe."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, int] | None = None
        # Repeats.
        self._recent: deque[np.ndarray] = deque(maxlen=REMEMBERED)  # each another image
        self._new_ns = 0  # stamp of the last image that was none of them
        self._same_since_ns = 0  # stamp of the first image identical to the last one
        # Noise.
        self._has_noise = False
        self._still: np.ndarray | None = None  # the first image that shows what the last one does
        # The view of RGB.
        self._view: np.ndarray | None = None  # its first `view_parts` since `_still`
        self._has_moved = False  # whether the last `view_parts` are of another view
        self._unmoved_ns = 0  # stamp of the last image before the view moved

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
            self._recent.clear()
        is_same = self._last is not None and _equal(image, self._last[0])
        self._last = image, stamp_ns
        if not is_same:
            self._track_repeats(image, stamp_ns)
            self._track_noise(image)
        self._track_view(rgb, stamp_ns)
        since_ns = self._new_ns if self._has_noise else stamp_ns
        return stamp_ns - min(since_ns, self._unmoved_ns) >= max(stall_after_ns, 1)

    @property
    def unchanged_since_ns(self) -> int:
        """Stamp of the first image that is identical to the last one."""
        return self._same_since_ns

    def _track_repeats(self, image: np.ndarray, stamp_ns: int) -> None:
        """Take an image that differs from the last one; it may equal an earlier one."""
        self._same_since_ns = stamp_ns
        if not any(_equal(image, earlier) for earlier in self._recent):
            self._new_ns = stamp_ns
            self._recent.append(image)

    def _track_noise(self, image: np.ndarray) -> None:
        """Take an image that differs from the last one; it shows the same but for noise, or not."""
        if self._still is not None and differs_by_noise(image, self._still):
            self._has_noise = True
        else:
            self._still, self._view, self._has_moved = image, None, False

    def _track_view(self, rgb: np.ndarray | None, stamp_ns: int) -> None:
        """Take the RGB image of each pair; one without texture, or None, changes nothing."""
        parts = None if rgb is None else view_parts(rgb)
        if parts is not None:
            self._view = parts if self._view is None else self._view
            self._has_moved = has_moved(self._view, parts)
        if not self._has_moved:
            self._unmoved_ns = stamp_ns


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


def view_parts(image: np.ndarray) -> np.ndarray | None:
    """Return the parts of an RGB image, reduced to `PART_SIZE` and each less its mean.

    Args:
        image: uint8 `[H, W, 3]`, of which green is examined.

    Returns:
        float32 `[down, rows, across, columns]`, or None if fewer than `MIN_TEXTURED` parts have
        texture, as in the dark or in a very small image.
    """
    (height, width), (rows, columns) = image.shape[:2], PART_SIZE
    down, across = min(PARTS, height // rows), min(PARTS, width // columns)
    if down * across < MIN_TEXTURED:
        return None
    step = 2 if height >= 2 * down * rows and width >= 2 * across * columns else 1
    size = across * columns, down * rows
    reduced = cv2.resize(image[::step, ::step, 1], size, interpolation=cv2.INTER_AREA)
    parts = reduced.reshape(down, rows, across, columns).astype(np.float32)
    parts -= parts.mean(axis=(1, 3), keepdims=True)
    is_textured = parts.std(axis=(1, 3)) >= TEXTURE
    return parts if np.count_nonzero(is_textured) >= MIN_TEXTURED else None


def has_moved(first: np.ndarray, now: np.ndarray) -> bool:
    """Return whether more than half of the textured parts of two views differ in pattern.

    Args:
        first, now: of `view_parts`.
    """
    if first.shape != now.shape:
        return True
    old, new = (parts.std(axis=(1, 3)) for parts in (first, now))
    is_textured = np.maximum(old, new) >= TEXTURE
    scale = np.maximum(old * new, 1e-6)
    correlations = (first * now).mean(axis=(1, 3)) / scale
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
