"""DELIVER (Zhang et al., CVPR 2023): synthetic streets of 1042x1042 with depth, events and LiDAR.

Two protocols are in use, whose results must not be compared. `deliver` measures on the split `test`
(1897 frames), as the data set's makers intend. `deliver_val` measures on the split `val` (2005
frames), as CMNeXt does; there the validation frames are a tenth of the training frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sartm_model.data.folder import FrameFiles
from sartm_model.data.frame import join_conditions
from sartm_model.data.label_map import LabelMap
from sartm_model.data.listed import ListedFrames, part_of_split
from sartm_model.errors import SartmError
from sartm_model.labels import DELIVER, IGNORE_ID

WEATHERS = ('cloud', 'fog', 'night', 'rain', 'sun')
CORNER_CASES = ('motionblur', 'overexposure', 'underexposure', 'lidarjitter', 'eventlowres')

FOLDERS = {
    'rgb': ('img', '_rgb'),
    'depth_coded': ('depth', '_depth'),
    'hha': ('hha', '_depth'),
    'lidar': ('lidar', '_lidar'),
    'event': ('event', '_event'),
}
"""Modality -> its folder under the root, and what its files have in place of '_rgb'."""

ENDING = '_rgb_front'


class Deliver(ListedFrames):
    """`<img|depth|hha|lidar|event|semantic>/<weather>/<split>/<map>/NAME_rgb_front.png`.

    Of the modalities beside RGB those are read whose folder there is. The values in the first
    channel of `semantic` are the classes' ids plus 1; 0 and 255 are not labelled. Event images have
    fewer pixels and are resized. Each frame has two conditions, its weather and its corner case, if
    it has one.
    """

    title = 'DELIVER'
    classes = DELIVER
    raw_ids: ClassVar = LabelMap(
        {0: IGNORE_ID, IGNORE_ID: IGNORE_ID, **{id_ + 1: id_ for id_ in range(len(DELIVER))}},
        first_channel=True,
        advice='which DELIVER does not use; expected 0 to 25 or 255',
    )
    SPLITS: ClassVar[tuple[str, ...]] = ('train', 'val', 'test')
    NUM_DISJOINT = 3
    RESIZED = True

    @classmethod
    def find(cls, root: Path, split: str) -> dict[str, FrameFiles]:
        """Return the files of each frame of a split, whether they exist or not."""
        cls.check_split(split)
        return cls._of_folder(root, split)

    @classmethod
    def images(cls, root: Path) -> list[Path]:
        """Return all RGB images."""
        return sorted((root / 'img').rglob(f'*{ENDING}.png'))

    @classmethod
    def condition(cls, name: str) -> str:
        """Return the weather of a frame and its corner case, such as 'night+motionblur'."""
        weather, _, rest = name.partition('_')
        cases = [case for case in CORNER_CASES if case in rest.lower()]
        return join_conditions([weather, *cases])

    @classmethod
    def _of_folder(cls, root: Path, folder: str) -> dict[str, FrameFiles]:
        """Return the files of the frames in the folders of this name, one in each weather."""
        there = {name: where for name, where in FOLDERS.items() if (root / where[0]).is_dir()}
        files = {}
        for weather in WEATHERS:
            base = root / 'img' / weather / folder
            for rgb in sorted(base.glob(f'*/*{ENDING}.png')):
                within = rgb.parent.relative_to(root / 'img')
                before = rgb.stem.removesuffix(ENDING)
                images = {
                    name: root / part / within / f'{before}{kind}_front.png'
                    for name, (part, kind) in there.items()
                }
                labels = root / 'semantic' / within / f'{before}_semantic_front.png'
                files[f'{weather}_{rgb.parent.name}_{before}'] = FrameFiles(images, labels)
        if not files:
            raise SartmError(
                f'{root / "img"} has no image */{folder}/*/*{ENDING}.png; expected the weathers '
                f'{", ".join(WEATHERS)}, in each the folder {folder}'
            )
        return files


class DeliverVal(Deliver):
    """The protocol that measures on the official validation frames, which are its split `test`.

    A tenth of the training frames, always the same ones, is `val`; 'trainval' has all of them.
    """

    title = 'DELIVER (val as test)'
    SPLITS = ('train', 'val', 'test', 'trainval')

    @classmethod
    def find(cls, root: Path, split: str) -> dict[str, FrameFiles]:
        """Return the files of each frame of a split, whether they exist or not."""
        cls.check_split(split)
        files = cls._of_folder(root, 'val' if split == 'test' else 'train')
        return {name: files[name] for name in part_of_split(files, split)}

    @classmethod
    def images(cls, root: Path) -> list[Path]:
        """Return the RGB images of the official training and validation frames."""
        paths = super().images(root)
        return [path for path in paths if path.parents[1].name in ('train', 'val')]
