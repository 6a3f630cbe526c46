"""SODA (Li et al., TNNLS 2020): thermal images of 480x640, real ones and synthetic ones.

There is no official validation split: a tenth of the training frames is set apart as `val`, always
the same ones (`published.part_of_split`).
"""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.label_map import LabelMap
from sartm_model.data.published import (
    PublishedDataset,
    files_by_stem,
    first_columns,
    folder_in,
    part_of_split,
)
from sartm_model.errors import SartmError
from sartm_model.labels import CITYSCAPES, IGNORE_ID, SODA

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The raw id of each class of Cityscapes in `*_gtFine_labelIds.png`; the others are ignored."""

REAL_FOLDER = 'InfraredSemanticLabel'
SYNTHETIC_ENDING = '_leftImg8bit_synthesized_image'
LABELS_ENDING = '_gtFine_labelIds'


def _find_real(root: Path, split: str) -> dict[str, FrameFiles]:
    base = folder_in(root, REAL_FOLDER)
    part = 'test' if split == 'test' else 'train'
    images = files_by_stem(base / 'JPEGImages', '*.jpg')
    files = {}
    for name in part_of_split(first_columns(base / f'{part}_infrared.txt'), split):
        image = images.get(name, base / 'JPEGImages' / f'{name}.jpg')
        relative = image.relative_to(base / 'JPEGImages').with_suffix('.png')
        labels = base / 'SegmentationClassOne' / relative
        files[name] = FrameFiles({'thermal': image}, labels)
    return files


def _find_synthetic(root: Path, split: str) -> dict[str, FrameFiles]:
    folder = root / 'TIR_leftImg8bit'
    images = files_by_stem(folder, f'*{SYNTHETIC_ENDING}.jpg', SYNTHETIC_ENDING)
    if not images:
        raise SartmError(f'{folder} has no image *{SYNTHETIC_ENDING}.jpg')
    labels = files_by_stem(root / 'gtFine', f'*{LABELS_ENDING}.png', LABELS_ENDING)
    return {
        name: FrameFiles(
            {'thermal': images[name]},
            labels.get(name, root / 'gtFine' / f'{name}{LABELS_ENDING}.png'),
        )
        for name in part_of_split(images, split)
    }


REAL = PublishedDataset(
    'SODA',
    SODA,
    _find_real,
    splits=('train', 'val', 'test'),
    unions=('trainval',),
    first_images=lambda root: sorted((folder_in(root, REAL_FOLDER) / 'JPEGImages').rglob('*.jpg')),
)
"""2168 frames of 20 classes and background.

`InfraredSemanticLabel/` is the root or in it. It has the lists `train_infrared.txt` and
`test_infrared.txt`, images in `JPEGImages/` and labels in `SegmentationClassOne/`, both in folders
of any depth. 'trainval' is the official training split.
"""

SYNTHETIC = PublishedDataset(
    'SODA synthetic',
    CITYSCAPES,
    _find_synthetic,
    splits=('train', 'val'),
    unions=('all',),
    first_images=lambda root: sorted((root / 'TIR_leftImg8bit').rglob('*.jpg')),
    label_map=LabelMap({raw: id_ for id_, raw in enumerate(CITYSCAPES_IDS)}, others=IGNORE_ID),
)
"""5000 thermal images made of Cityscapes', with its 19 classes.

`TIR_leftImg8bit/**/NAME_leftImg8bit_synthesized_image.jpg` and
`gtFine/**/NAME_gtFine_labelIds.png`. 'all' has the frames of 'train' and of 'val'.
"""
