"""PST900 (Shivakumar et al., ICRA 2020): 894 RGB-thermal frames of 720x1280 in tunnels.

`<root>/{train,test}/{rgb,thermal,labels}`, thermal 8- or 16-bit.
"""

from __future__ import annotations

from sartm_model.data.published import split_folders
from sartm_model.labels import PST900

DATASET = split_folders('PST900', PST900, rgb='rgb', thermal='thermal', labels='labels')
