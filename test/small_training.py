"""A folder of labelled frames, and the configuration of a training of a few steps on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml


def write_folder(
    root: Path,
    frames: Sequence[dict[str, np.ndarray]],
    train: int,
    label_space: str | dict[str, Any] = 'mfnet',
) -> Path:
    """Write frames as PNG files, named by their number, and return the file that declares them.

    Args:
        root: the folder; created if missing.
        frames: the images of each by the name of their modality, and its ids as 'labels'.
        train: how many frames the split 'train' has; the others are the split 'val'.
        label_space: of the ids.
    """
    for number, frame in enumerate(frames):
        for name, image in frame.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = image[..., ::-1] if name == 'rgb' else image  # OpenCV writes BGR
            assert cv2.imwrite(str(root / name / f'{number}.png'), pixels)
    stems = [str(number) for number in range(len(frames))]
    declaration = {
        'label_space': label_space,
        'images': {name: f'{name}/{{stem}}.png' for name in frames[0] if name != 'labels'},
        'labels': 'labels/{stem}.png',
        'splits': {'train': stems[:train], 'val': stems[train:]},
    }
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    return root / 'data.yaml'


def splits(declared: Path) -> dict[str, Any]:
    """Return the settings of `data` that train on the one split of a folder and measure the other.

    Args:
        declared: the file that `write_folder` returns.
    """
    source = {'dataset': 'folder', 'root': str(declared)}
    return {'train': [source], 'val': {**source, 'split': 'val'}}


def write_config(path: Path, data: dict[str, Any], steps: int, **settings: Any) -> Path:
    """Write a configuration for a CPU, whose last step is also the one validation.

    Args:
        path: the file, which is returned.
        data: the settings of `data`; without others, crops are 64 x 64 and there are two a batch.
        steps: the number of steps.
        settings: all others, such as `model`.
    """
    small = {'crop_height': 64, 'crop_width': 64, 'batch_size': 2, 'workers': 0}
    values = {
        'data': small | data,
        'steps': steps,
        'val_every': steps,
        'ema_decay': 0.0,
        'device': 'cpu',
        **settings,
    }
    path.write_text(yaml.safe_dump(values))
    return path
