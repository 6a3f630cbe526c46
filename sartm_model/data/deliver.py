"""DELIVER (Zhang et al., CVPR 2023): synthetic streets of 1042x1042 with depth, events and LiDAR.

Two protocols are in use, whose results must not be compared. `deliver` measures on the split `test`
(1897 frames), as the data set's makers intend. `deliver_val` measures on the split `val` (2005
frames), as CMNeXt does; there the validation frames are a tenth of the training frames.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.frame import join_conditions
from sartm_model.data.label_map import LabelMap, ids_plus_one
from sartm_model.data.published import PublishedDataset, part_of_split
from sartm_model.errors import SartmError
from sartm_model.labels import DELIVER

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


def condition_of(name: str) -> str:
    """Return the weather of a frame and its corner case, such as 'night+motionblur'."""
    weather, _, rest = name.partition('_')
    cases = [case for case in CORNER_CASES if case in rest.lower()]
    return join_conditions([weather, *cases])


def _find(root: Path, folder: str) -> dict[str, FrameFiles]:
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


def _find_val_as_test(root: Path, split: str) -> dict[str, FrameFiles]:
    files = _find(root, 'val' if split == 'test' else 'train')
    return {name: files[name] for name in part_of_split(files, split)}


def _first_images(root: Path) -> list[Path]:
    return sorted((root / 'img').rglob(f'*{ENDING}.png'))


DATASET = PublishedDataset(
    'DELIVER',
    DELIVER,
    _find,
    splits=('train', 'val', 'test'),
    first_images=_first_images,
    label_map=LabelMap(
        ids_plus_one(DELIVER),
        first_channel=True,
        advice='which DELIVER does not use; expected 0 to 25 or 255',
    ),
    condition=condition_of,
    resize=True,
)
"""`<img|depth|hha|lidar|event|semantic>/<weather>/<split>/<map>/NAME_rgb_front.png`.

Of the modalities beside RGB those are read whose folder there is. The values in the first channel
of `semantic` are the classes' ids plus 1; 0 and 255 are not labelled. Event images have fewer
pixels and are resized. Each frame has two conditions, its weather and its corner case, if it has
one.
"""

VAL_AS_TEST = replace(
    DATASET,
    title='DELIVER (val as test)',
    find=_find_val_as_test,
    unions=('trainval',),
    first_images=lambda root: [
        path for path in _first_images(root) if path.parents[1].name in ('train', 'val')
    ],
)
"""The protocol that measures on the official validation frames, which are its split `test`.

A tenth of the training frames, always the same ones, is `val`; 'trainval' has all of them.
"""
