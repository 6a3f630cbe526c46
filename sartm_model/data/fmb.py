"""FMB (Liu et al., ICCV 2023): 1500 RGB-thermal frames of 600x800 in 14 classes and background."""

from __future__ import annotations

from typing import ClassVar

from sartm_model.data.folder import SplitFolders
from sartm_model.labels import FMB


class Fmb(SplitFolders):
    """`<root>/{train,test}/{Visible,Infrared,Label}`; the infrared images may be 3-channel grey."""

    title = 'FMB'
    folders: ClassVar = {'rgb': 'Visible', 'thermal': 'Infrared', 'labels': 'Label'}
    classes = FMB
