"""The files that describe pseudo-labels: as a data set `folder`, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from sartm_model.labels import IGNORE_ID, LabelSpace

FILE = 'data.yaml'
SPLIT = 'train'
LIST = f'{SPLIT}.txt'
MANIFEST = 'manifest.json'


def declaration(space: LabelSpace, images: Mapping[str, str], *, resize: bool = False) -> str:
    """Return the content of `data.yaml`, for labels in `labels/NAME.png` and names in `train.txt`.

    Args:
        space: the classes.
        images: modality -> pattern of its files.
        resize: whether the other images are resized to the first one.
    """
    found = space.to_dict()
    classes = zip(found['classes'], found['colors'], strict=True)
    content = {
        'label_space': {
            'name': found['name'],
            'background_id': found['background_id'],
            'names': [{'name': name, 'color': color} for name, color in classes],
        },
        'images': dict(images),
        'labels': 'labels/{stem}.png',
        'splits': {SPLIT: LIST},
        'resize': resize,
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def manifest(
    settings: Mapping[str, Any], space: LabelSpace, images: int, labelled: int, counts: np.ndarray
) -> str:
    """Return the content of `manifest.json`.

    Args:
        settings: what the labels were made with.
        space: the classes.
        images: how many images there are.
        labelled: how many of them have labels.
        counts: pixels by label, int `[256]`.
    """
    content = {
        'settings': dict(settings),
        'images': images,
        'labelled': labelled,
        'pixels': {
            **{name: int(count) for name, count in zip(space.classes, counts, strict=False)},
            'ignored': int(counts[IGNORE_ID]),
        },
    }
    return json.dumps(content, indent=2) + '\n'
