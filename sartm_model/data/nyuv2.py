"""NYUv2 (Silberman et al., ECCV 2012): indoor frames of 480x640 with depth, 40 classes.

`train.txt` (795 frames) and `test.txt` (654) are beside folders of images, in one of two layouts.
There is no official validation split: a tenth of the training frames is `val`, always the same
ones, and 'trainval' has all of them.
"""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.label_map import LabelMap, ids_plus_one
from sartm_model.data.published import PublishedDataset, first_columns, part_of_split
from sartm_model.errors import SartmError
from sartm_model.labels import NYUV2


def _dataset(
    other: str, label_map: LabelMap | None = None, **folders: tuple[str, str]
) -> PublishedDataset:
    """Return the data set in one layout.

    Args:
        other: what to say of a folder that has the other layout.
        label_map: of the label images.
        folders: for each modality and for 'labels' its folder and the suffix of its files.
    """

    def find(root: Path, split: str) -> dict[str, FrameFiles]:
        names = {path.name for path in root.iterdir()}
        if missing := [folder for folder, _ in folders.values() if folder not in names]:
            expected = ', '.join(f'{folder}/*{suffix}' for folder, suffix in folders.values())
            raise SartmError(f'{root} has no folder {missing[0]}; expected {expected} ({other})')
        listed = 'test' if split == 'test' else 'train'
        return {
            name: FrameFiles.of_parts(
                {
                    part: root / folder / f'{name}{suffix}'
                    for part, (folder, suffix) in folders.items()
                }
            )
            for name in part_of_split(first_columns(root / f'{listed}.txt'), split)
        }

    rgb, suffix = folders['rgb']
    return PublishedDataset(
        'NYUv2',
        NYUV2,
        find,
        splits=('train', 'val', 'test'),
        unions=('trainval',),
        first_images=lambda root: sorted((root / rgb).glob(f'*{suffix}')),
        label_map=label_map,
    )


# The label images of this layout hold ids without a shift; depth is in millimetres.
DATASET = _dataset(
    'RGB, HHA and Label are the data set nyuv2_hha',
    rgb=('rgb', '.png'),
    depth=('depth', '.png'),
    labels=('masks', '.png'),
)
# Those of this one hold ids plus 1; 0 and 255 are not labelled.
DATASET_HHA = _dataset(
    'rgb, depth and masks are the data set nyuv2',
    LabelMap(
        ids_plus_one(NYUV2),
        advice='which Label of NYUv2 does not use; expected 0 to 40 or 255',
    ),
    rgb=('RGB', '.jpg'),
    hha=('HHA', '.jpg'),
    labels=('Label', '.png'),
)
