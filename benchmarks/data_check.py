"""Measure `sartm data check`: `python -m benchmarks.data_check --frames 1000`.

Writes generated frames of 480x640 as a user has them (RGB as JPEG, 16-bit thermal as TIFF, masks
with raw ids as PNG) to a temporary folder, checks them, and prints the time as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import yaml

from sartm_model.data.synthetic import SyntheticScenes
from sartm_model.data.validation import check

SCENES = 20
RAW_ID_STEP = 7
"""The raw id of class k is 7 k."""


def write_frames(root: Path, frames: int) -> Path:
    """Write the frames and the YAML file that declares them, whose path is returned.

    Each frame is one of a few scenes, shifted, with noise of its own.
    """
    rng = np.random.default_rng(0)
    scenes = [frame for frame, _ in zip(SyntheticScenes('train'), range(SCENES), strict=False)]
    for part in ('rgb', 'thermal', 'masks'):
        (root / part).mkdir()
    for number in range(frames):
        scene = scenes[number % SCENES]
        assert scene.rgb is not None
        assert scene.thermal is not None
        assert scene.labels is not None
        rgb, labels = (np.roll(image, 7 * number, axis=1) for image in (scene.rgb, scene.labels))
        thermal = 27000 + 40 * np.roll(scene.thermal, 7 * number, axis=1).astype(np.uint16)
        thermal += rng.integers(0, 40, thermal.shape, np.uint16)
        cv2.imwrite(str(root / 'rgb' / f'{number:05d}.jpg'), rgb[..., ::-1])
        cv2.imwrite(str(root / 'thermal' / f'{number:05d}.tiff'), thermal)
        cv2.imwrite(str(root / 'masks' / f'{number:05d}.png'), RAW_ID_STEP * labels)
    classes = SyntheticScenes.label_space.classes
    data = {
        'label_space': list(classes),
        'images': {'rgb': 'rgb/{stem}.jpg', 'thermal': 'thermal/{stem}.tiff'},
        'labels': 'masks/{stem}.png',
        'label_map': {RAW_ID_STEP * id_: name for id_, name in enumerate(classes)},
        'splits': {'train': [f'{number:05d}' for number in range(frames)]},
    }
    path = root / 'data.yaml'
    path.write_text(yaml.safe_dump(data))
    return path


def main(argv: list[str] | None = None) -> int:
    """Print the time of a check as JSON; return the exit status, 1 if it found a fault."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.data_check',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--frames', type=int, default=1000, help='(default: %(default)s)')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = write_frames(Path(folder), args.frames)
        begun = time.perf_counter()
        report = check('folder', path)
        seconds = time.perf_counter() - begun
    result = {
        'frames': args.frames,
        'cores': os.cpu_count(),
        'seconds': round(seconds, 2),
        'faults': len(report.faults),
    }
    print(json.dumps(result))
    return 1 if report.faults else 0


if __name__ == '__main__':
    sys.exit(main())
