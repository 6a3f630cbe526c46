"""FMB (Liu et al., ICCV 2023): 1500 RGB-thermal frames of 600x800 in 14 classes and background."""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.folder import FolderPairs, split_folder
from sartm_model.labels import FMB

FOLDERS = ('Visible', 'Infrared', 'Label')


class Fmb(FolderPairs):
    """`<root>/{train,test}/{Visible,Infrared,Label}`; the infrared images may be 3-channel grey.

    Raises SartmError where a folder or a file is missing.
    """

    def __init__(self, root: Path, split: str) -> None:
        base = split_folder(root, split, 'FMB')
        rgb, thermal, labels = (base / folder for folder in FOLDERS)
        super().__init__(rgb, thermal, labels, FMB, aligned=True)
