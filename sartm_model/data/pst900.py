"""PST900 (Shivakumar et al., ICRA 2020): 894 RGB-thermal frames of 720x1280 in tunnels."""

from __future__ import annotations

from pathlib import Path

from sartm_model.data.folder import FolderPairs, split_folder
from sartm_model.labels import PST900

FOLDERS = ('rgb', 'thermal', 'labels')


class Pst900(FolderPairs):
    """`<root>/{train,test}/{rgb,thermal,labels}`, thermal 8- or 16-bit.

    Raises SartmError where a folder or a file is missing.
    """

    def __init__(self, root: Path, split: str) -> None:
        base = split_folder(root, split, 'PST900')
        rgb, thermal, labels = (base / folder for folder in FOLDERS)
        super().__init__(rgb, thermal, labels, PST900, aligned=True)
