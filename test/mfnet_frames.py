"""Frames in MFNet's layout, for tests that need a data set on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_frames(root: Path, labels: dict[str, np.ndarray]) -> Path:
    """Write frames in MFNet's layout, listed in `train.txt` and `val.txt`; returns `root`.

    Args:
        root: folder to make.
        labels: class ids `[H, W]` of each frame by its name. Both images show noise around a grey
            value that depends on the class.
    """
    rng = np.random.default_rng(0)
    for kind in ('rgb', 'thermal', 'labels'):
        (root / kind).mkdir(parents=True)
    for name, ids in labels.items():
        thermal = 40 + 30 * (ids % 7) + rng.integers(0, 30, ids.shape)
        rgb = thermal[..., None] + rng.integers(0, 30, (*ids.shape, 3))
        for kind, image in (('rgb', rgb), ('thermal', thermal), ('labels', ids)):
            cv2.imwrite(str(root / kind / f'{name}.png'), image.astype(np.uint8))
    for split in ('train', 'val'):
        (root / f'{split}.txt').write_text('\n'.join(labels))
    return root


def to_16_bits(thermal: np.ndarray) -> np.ndarray:
    """Bring a thermal image of 8 bits to radiometric counts with noise, uint16 from 29000 up."""
    noise = np.random.default_rng(int(thermal.sum()) % 2**32).integers(-3, 4, thermal.shape)
    return (29000 + 8 * thermal.astype(np.int32) + noise).astype(np.uint16)
