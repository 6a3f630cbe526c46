"""PST900 (Shivakumar et al., ICRA 2020): 894 RGB-thermal frames of 720x1280 in tunnels."""

from __future__ import annotations

from typing import ClassVar

from sartm_model.data.folder import SplitFolders
from sartm_model.labels import PST900


class Pst900(SplitFolders):
    """`<root>/{train,test}/{rgb,thermal,labels}`, thermal 8- or 16-bit."""

    title = 'PST900'
    folders: ClassVar = {'rgb': 'rgb', 'thermal': 'thermal', 'labels': 'labels'}
    classes = PST900
