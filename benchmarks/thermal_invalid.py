"""IoU of persons where parts of the thermal images see nothing, on MFNet brought to 16 bits.

    python -m benchmarks.thermal_invalid --root MFNet --split val

Counts are 29000 + 8 x, with noise of 3 counts. Each case is run as it is, and with the recognition
of invalid pixels switched off. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.registry import open_dataset
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities import thermal_range
from sartm_model.modalities.thermal_settings import ThermalSettings

NOISE = 3


def radiometric(thermal: np.ndarray) -> np.ndarray:
    """Return counts uint16 of an 8-bit image."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-NOISE, NOISE + 1, thermal.shape)
    return (29000 + 8 * thermal.astype(np.int32) + noise).astype(np.uint16)


def quarter(counts: np.ndarray) -> np.ndarray:
    """Return the image at a quarter of its size, 160x120 for 640x480."""
    return cv2.resize(counts, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)


def border(counts: np.ndarray) -> np.ndarray:
    """Return the image with 12 pixels of zeros all round."""
    return np.pad(counts[12:-12, 12:-12], 12)


def rectified(counts: np.ndarray) -> np.ndarray:
    """Return the image with a curved border of zeros that a bilinear warp mixes into it."""
    height, width = counts.shape
    y, x = np.indices(counts.shape, np.float32)
    y, x = y - height / 2, x - width / 2
    stretch = 1 + 0.04 * (x**2 + y**2) / (width / 2) ** 2
    ones = np.ones(counts.shape, np.float32)
    x, y = x * stretch + width / 2, y * stretch + height / 2
    share = cv2.remap(ones, x, y, cv2.INTER_LINEAR)
    return (counts * share).astype(np.uint16)


def vignette(counts: np.ndarray) -> np.ndarray:
    """Return the image with zeros outside a circle that cuts the corners off."""
    y, x = (np.indices(counts.shape).T - np.array(counts.shape) / 2).T
    return np.where(np.hypot(x, y) < 0.55 * counts.shape[1], counts, 0).astype(np.uint16)


def shading(counts: np.ndarray) -> np.ndarray:
    """Return the image with corners that are 300 counts darker."""
    y, x = (2 * np.indices(counts.shape).T / np.array(counts.shape) - 1).T
    return (counts - 75 * (x**2 + y**2) ** 2).astype(np.uint16)


def telemetry(counts: np.ndarray) -> np.ndarray:
    """Return the quarter of the image with two rows of numbers below it."""
    small = quarter(counts)
    rows = np.random.default_rng(1).integers(0, 65536, (2, small.shape[1]))
    return np.concatenate([small, rows.astype(np.uint16)])


FIXED = ThermalSettings('fixed', 29000, 30200)
CASES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ThermalSettings]] = {
    'whole image': (lambda counts: counts, ThermalSettings()),
    'border of 12 pixels': (border, ThermalSettings()),
    'rectified, curved border': (rectified, ThermalSettings()),
    'vignette of zeros': (vignette, ThermalSettings()),
    'shading': (shading, ThermalSettings()),
    'fixed range, whole image': (lambda counts: counts, FIXED),
    'fixed range, border of 12 pixels': (border, FIXED),
    '160x120': (quarter, ThermalSettings()),
    '160x122 with telemetry': (telemetry, ThermalSettings()),
    '160x122, thermal.crop [0, 0, 2, 0]': (telemetry, ThermalSettings(crop=(0, 0, 2, 0))),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', type=Path, required=True)
    parser.add_argument('--split', default='val')
    parser.add_argument('--checkpoint', default='demo')
    args = parser.parse_args()
    frames = open_dataset('mfnet', args.root, args.split)
    predictor = Predictor(args.checkpoint)
    nothing = mock.patch.object(
        thermal_range, 'invalid_pixels', lambda counts, *_: counts != counts
    )
    print('| thermal | persons, % | mIoU, % | without the recognition: persons | mIoU |')
    print('|---|---|---|---|---|')
    for name, (change, predictor.thermal_settings) in CASES.items():
        row = list(_measure(predictor, frames, change))
        with nothing:
            row += _measure(predictor, frames, change)
        print(f'| {name} | ' + ' | '.join(f'{value:.1f}' for value in row) + ' |', flush=True)


def _measure(
    predictor: Predictor, frames: FrameDataset, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Return the IoU of persons and the mean over all classes, in percent."""
    matrix = ConfusionMatrix(len(predictor.label_space))
    for frame in (frames[index] for index in range(len(frames))):
        assert frame.thermal is not None
        assert frame.labels is not None
        labels = predictor.predict(frame.rgb, change(radiometric(frame.thermal))).labels
        matrix.update(labels, frame.labels)
    result = matrix.compute(predictor.label_space)
    return result['per_class_iou']['person'], result['miou']


if __name__ == '__main__':
    main()
