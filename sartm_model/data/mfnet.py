"""MFNet (Ha et al., IROS 2017): 1569 RGB-thermal frames of 480x640 by day and by night.

A split is what `<root>/<split>.txt` lists, one stem per line: also the day and night lists of the
official release, such as `test_day` and `test_night`. Two layouts are read: the official one,
`images/<stem>.png` RGBA with thermal in alpha, and `rgb/<stem>.png` with `thermal/<stem>.png`; both
with `labels/<stem>.png`. A stem ends in D for day or N for night.
"""

from __future__ import annotations

import re
from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.frame import Condition
from sartm_model.data.frame_list import read_stems
from sartm_model.data.published import PublishedDataset
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET

STEM = re.compile(r'\d+([DN])(_flip)?')


def condition_of(stem: str) -> Condition | None:
    """Return 'day' or 'night' for a stem of MFNet (a number, then D or N), else None."""
    match = STEM.fullmatch(stem)
    return None if match is None else ('day' if match[1] == 'D' else 'night')


def image_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each modality, which is the same for RGBA files, and of 'labels'."""
    if (root / 'images').is_dir():
        return {'rgb': root / 'images', 'thermal': root / 'images', 'labels': root / 'labels'}
    if (root / 'rgb').is_dir():
        return {part: root / part for part in ('rgb', 'thermal', 'labels')}
    raise SartmError(f'{root} is not MFNet: it has neither images/ (RGBA) nor rgb/ and thermal/')


def find(root: Path, split: str) -> dict[str, FrameFiles]:
    """Return where the files of each frame of a list must be, whether they exist or not.

    Raises:
        SartmError: the list is missing, or a line is not a stem or occurs twice.
    """
    folders = image_folders(root)
    return {
        stem: FrameFiles.of_parts({part: path / f'{stem}.png' for part, path in folders.items()})
        for stem in read_split(root, split)
    }


def read_split(root: Path, split: str) -> list[str]:
    """Read the stems in `<root>/<split>.txt`, see `read_stems`.

    Raises:
        SartmError: the list is missing, or is not a list of stems.
    """
    path = root / f'{split}.txt'
    if not path.exists():
        there = sorted(p.stem for p in root.glob('*.txt'))
        raise SartmError(
            f'{path} does not exist; the splits here are: {", ".join(there) or "none"}'
        )
    return read_stems(path)


DATASET = PublishedDataset('MFNet', MFNET, find, condition=condition_of)
