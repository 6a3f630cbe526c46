"""SCUT-Seg (Xiong et al., Infrared Physics & Technology 2021): thermal images of roads by night.

`scut_train.txt`, `scut_val.txt`, `image/**/NAME.jpg` and `gt_instance/**/NAME_labelIds.png` are in
the root or in `dataset/` in it. The lists have two columns, of which the first is the path of an
image.
"""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.label_map import LabelMap
from sartm_model.data.published import PublishedDataset, files_by_stem, first_columns, folder_in
from sartm_model.labels import SCUT_SEG

RAW_IDS = (0, 7, 24, 25, 26, 27, 13, 21, 28, 17)
"""The value of each class in the label images; another value is a fault."""

ENDING = '_labelIds'


def find(root: Path, split: str) -> dict[str, FrameFiles]:
    """Return the files of each frame of a split, whether they exist or not."""
    base = folder_in(root, 'dataset')
    images = files_by_stem(base / 'image', '*.jpg')
    labels = files_by_stem(base / 'gt_instance', f'*{ENDING}.png', ENDING)
    return {
        name: FrameFiles(
            {'thermal': images.get(name, base / 'image' / f'{name}.jpg')},
            labels.get(name, base / 'gt_instance' / f'{name}{ENDING}.png'),
        )
        for name in first_columns(base / f'scut_{split}.txt')
    }


DATASET = PublishedDataset(
    'SCUT-Seg',
    SCUT_SEG,
    find,
    splits=('train', 'val'),
    first_images=lambda root: sorted((folder_in(root, 'dataset') / 'image').rglob('*.jpg')),
    label_map=LabelMap(
        {raw: id_ for id_, raw in enumerate(RAW_IDS)},
        advice=f'which SCUT-Seg does not use; expected {", ".join(map(str, sorted(RAW_IDS)))}',
    ),
)
