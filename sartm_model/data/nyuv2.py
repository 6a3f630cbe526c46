"""NYUv2 (Silberman et al., ECCV 2012): indoor frames of 480x640 with depth, 40 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sartm_model.data.folder import FrameFiles
from sartm_model.data.label_map import LabelMap
from sartm_model.data.listed import ListedFrames, first_columns, part_of_split
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, NYUV2, LabelSpace


class _NyuFrames(ListedFrames):
    """`train.txt` (795 frames) and `test.txt` (654) beside folders of images.

    There is no official validation split: a tenth of the training frames is `val`, always the same
    ones, and 'trainval' has all of them.

    Attributes:
        folders: modality or 'labels' -> its folder and the suffix of its files.
        other: what to say of a folder that has the other layout.
    """

    title = 'NYUv2'
    classes: ClassVar[LabelSpace] = NYUV2
    folders: ClassVar[dict[str, tuple[str, str]]]
    other: ClassVar[str]
    SPLITS = ('train', 'val', 'test', 'trainval')
    NUM_DISJOINT = 3

    @classmethod
    def find(cls, root: Path, split: str) -> dict[str, FrameFiles]:
        """Return the files of each frame of a split, whether they exist or not."""
        cls.check_split(split)
        names = {path.name for path in root.iterdir()}
        if missing := [folder for folder, _ in cls.folders.values() if folder not in names]:
            expected = ', '.join(f'{folder}/*{suffix}' for folder, suffix in cls.folders.values())
            raise SartmError(
                f'{root} has no folder {missing[0]}; expected {expected} ({cls.other})'
            )
        part = 'test' if split == 'test' else 'train'
        return {
            name: FrameFiles.of_parts(
                {
                    part: root / folder / f'{name}{suffix}'
                    for part, (folder, suffix) in cls.folders.items()
                }
            )
            for name in part_of_split(first_columns(root / f'{part}.txt'), split)
        }

    @classmethod
    def images(cls, root: Path) -> list[Path]:
        """Return all RGB images."""
        folder, suffix = cls.folders['rgb']
        return sorted((root / folder).glob(f'*{suffix}'))


class NyuV2Hha(_NyuFrames):
    """`RGB/*.jpg`, `HHA/*.jpg`, `Label/*.png`: ids plus 1; 0 and 255 are not labelled."""

    folders: ClassVar = {
        'rgb': ('RGB', '.jpg'),
        'hha': ('HHA', '.jpg'),
        'labels': ('Label', '.png'),
    }
    other = 'rgb, depth and masks are the data set nyuv2'
    raw_ids: ClassVar = LabelMap(
        {0: IGNORE_ID, IGNORE_ID: IGNORE_ID, **{id_ + 1: id_ for id_ in range(len(NYUV2))}},
        advice='which Label of NYUv2 does not use; expected 0 to 40 or 255',
    )


class NyuV2(_NyuFrames):
    """`rgb/*.png`, `depth/*.png` in millimetres, `masks/*.png` of ids without a shift."""

    folders: ClassVar = {
        'rgb': ('rgb', '.png'), 'depth': ('depth', '.png'), 'labels': ('masks', '.png')
    }  # fmt: skip
    other = 'RGB, HHA and Label are the data set nyuv2_hha'
