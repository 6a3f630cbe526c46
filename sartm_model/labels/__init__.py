"""Label spaces: the classes behind the ids of a label image, and their colours."""

from __future__ import annotations

from sartm_model.labels.built_in import CITYSCAPES, FMB, MFNET, PST900, SCUT_SEG, SODA
from sartm_model.labels.rgbx import DELIVER, NYUV2, URBANLF, ZJU_RGB_P, ZJU_RGB_P9
from sartm_model.labels.space import IGNORE_ID, MAX_CLASSES, UNKNOWN_COLOR, LabelSpace, View

__all__ = [
    'CITYSCAPES',
    'DELIVER',
    'FMB',
    'IGNORE_ID',
    'LABEL_SPACES',
    'MAX_CLASSES',
    'MFNET',
    'NYUV2',
    'PST900',
    'SCUT_SEG',
    'SODA',
    'UNKNOWN_COLOR',
    'URBANLF',
    'ZJU_RGB_P',
    'ZJU_RGB_P9',
    'LabelSpace',
    'View',
]

LABEL_SPACES = {
    space.name: space
    for space in (
        MFNET,
        PST900,
        FMB,
        SODA,
        SCUT_SEG,
        CITYSCAPES,
        DELIVER,
        NYUV2,
        URBANLF,
        ZJU_RGB_P,
        ZJU_RGB_P9,
    )
}
"""The built-in label spaces by name."""
