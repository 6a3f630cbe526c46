"""ZJU-RGB-P (Xiang et al., Optics Express 2021): streets of 1024x1224 with polarisation.

`train_label/NAME.png` (344) and `val_label/NAME.png` (50) are beside the images of the frames.
These are `0/NAME.png`, `45/`, `90/` and `135/`, behind the four polarisers, or in one or more
folders `NAME_image0_0.png`, at 0 degrees, and `NAME_aolp.png`, with `NAME_dolp.png` if there are
such. RGB is the image at 0 degrees. Ids are 0 to 7.

The published validation frames, on which results are given, are the split `test`. A tenth of the
training frames is `val`, always the same ones, and 'trainval' has all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sartm_model.data.file_frames import FrameFiles, images_in
from sartm_model.data.label_map import LabelMap
from sartm_model.data.published import PublishedDataset, files_by_stem, part_of_split
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, ZJU_RGB_P, ZJU_RGB_P9
from sartm_model.modalities.polarization import ANGLES

LABEL_FOLDERS = ('train_label', 'val_label')

RGB_ENDING = '_image0_0'
AOLP_ENDING = '_aolp'


def _find(root: Path, split: str) -> dict[str, FrameFiles]:
    folder = root / LABEL_FOLDERS[split == 'test']
    if not folder.is_dir():
        raise SartmError(
            f'{folder} does not exist; expected {" and ".join(LABEL_FOLDERS)} of ZJU-RGB-P'
        )
    labels = images_in(folder)
    at_0, at_45 = (root / angle for angle in ANGLES[:2])
    if at_0.is_dir():
        return {
            name: FrameFiles(
                {'rgb': at_0 / f'{name}.png', 'polarization': at_45 / f'{name}.png'},
                labels[name],
            )
            for name in part_of_split(labels, split)
        }
    rgb = files_by_stem(root, f'*{RGB_ENDING}.png', RGB_ENDING)
    aolp = files_by_stem(root, f'*{AOLP_ENDING}.png', AOLP_ENDING)
    if not rgb:
        raise SartmError(
            f'{root} has neither the folders {", ".join(ANGLES)} nor images *{RGB_ENDING}.png; '
            'expected one of these two layouts of ZJU-RGB-P'
        )
    return {
        name: FrameFiles(
            {
                'rgb': rgb.get(name, root / f'{name}{RGB_ENDING}.png'),
                'polarization': aolp.get(name, root / f'{name}{AOLP_ENDING}.png'),
            },
            labels[name],
        )
        for name in part_of_split(labels, split)
    }


def _first_images(root: Path) -> list[Path]:
    at_0 = root / ANGLES[0]
    if at_0.is_dir():
        return sorted(at_0.glob('*.png'))
    return sorted(root.rglob(f'*{RGB_ENDING}.png'))


DATASET = PublishedDataset(
    'ZJU-RGB-P',
    ZJU_RGB_P,
    _find,
    splits=('train', 'val', 'test'),
    unions=('trainval',),
    first_images=_first_images,
    label_map=LabelMap(
        {IGNORE_ID: IGNORE_ID, **{id_: id_ for id_ in range(len(ZJU_RGB_P))}},
        advice='but 8 classes have the ids 0 to 7; copies with background 0 are zju_rgb_p9',
    ),
)
# The copies with 9 classes, of which 0 is background: a bicycle is 8, not 7.
WITH_BACKGROUND = replace(
    DATASET, title='ZJU-RGB-P with background', classes=ZJU_RGB_P9, label_map=None
)
