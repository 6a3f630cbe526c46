"""The YAML file that declares images with pseudo-labels as a data set `folder`."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from sartm_model.labels import LabelSpace

FILE = 'data.yaml'
SPLIT = 'train'
LIST = f'{SPLIT}.txt'


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
