"""What the tests of exported files share: pairs of images, and how alike two predictions are."""

from __future__ import annotations

import numpy as np

# Sums are taken in another order: where two classes are as likely, either may come out.
AGREE = 0.999


def pair(height=70, width=100, thermal_size=None, bits=8, seed=0):
    """Blocks of random colours and temperatures."""
    rng = np.random.default_rng(seed)
    rows, columns = thermal_size or (height, width)
    block = np.ones((16, 16), np.uint8)
    rgb = np.stack([np.kron(rng.integers(0, 256, (99, 99)), block) for _ in range(3)], axis=-1)
    thermal = np.kron(rng.integers(0, 2**bits, (99, 99)), block)
    dtype = np.uint8 if bits == 8 else np.uint16
    return rgb[:height, :width].astype(np.uint8), thermal[:rows, :columns].astype(dtype)


def agreement(found, expected):
    """The part of the pixels with the same label; the confidence must differ by no more than 1."""
    assert found.labels.dtype == np.uint8
    assert found.labels.shape == expected.labels.shape
    same = found.labels == expected.labels
    difference = np.abs(found.confidence.astype(int) - expected.confidence)
    assert (difference[same] <= 1).mean() > AGREE
    return same.mean()
