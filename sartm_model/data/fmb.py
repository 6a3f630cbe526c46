"""FMB (Liu et al., ICCV 2023): 1500 RGB-thermal frames of 600x800 in 14 classes and background.

`<root>/{train,test}/{Visible,Infrared,Label}`; the infrared images may be 3-channel grey.
"""

from __future__ import annotations

from sartm_model.data.published import split_folders
from sartm_model.labels import FMB

DATASET = split_folders('FMB', FMB, rgb='Visible', thermal='Infrared', labels='Label')
