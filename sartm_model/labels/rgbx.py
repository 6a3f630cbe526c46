"""The label spaces of the published sets of RGB with depth, events, polarisation, light fields."""

from __future__ import annotations

import colorsys

from sartm_model.labels.built_in import CITYSCAPES
from sartm_model.labels.space import LabelSpace

# Steps of this fraction of the colour circle keep successive hues far apart.
_GOLDEN_RATIO = 0.618034


def _space(name: str, classes: str, background_id: int | None = None) -> LabelSpace:
    """Make a label space of class names separated by blanks.

    Classes of Cityscapes have its colours, the background is black, and others get a hue each.
    """
    names = tuple(classes.split())
    known = dict(zip(CITYSCAPES.classes, CITYSCAPES.colors, strict=True))
    colors = []
    for id_, class_name in enumerate(names):
        level = (1.0, 0.8, 0.6)[id_ % 3]
        red, green, blue = colorsys.hsv_to_rgb(id_ * _GOLDEN_RATIO % 1, 0.75, level)
        hue = (round(255 * red), round(255 * green), round(255 * blue))
        colors.append((0, 0, 0) if id_ == background_id else known.get(class_name, hue))
    return LabelSpace(name, names, tuple(colors), background_id)


DELIVER = _space(
    'deliver',
    'building fence other pedestrian pole road_line road sidewalk vegetation cars wall '
    'traffic_sign sky ground bridge rail_track ground_rail traffic_light static dynamic water '
    'terrain two_wheeler bus truck',
)

NYUV2 = _space(
    'nyuv2',
    'wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk '
    'shelves curtain dresser pillow mirror floor_mat clothes ceiling books refrigerator television '
    'paper towel shower_curtain box whiteboard person night_stand toilet sink lamp bathtub bag '
    'otherstructure otherfurniture otherprop',
)

URBANLF = LabelSpace(
    name='urbanlf',
    classes=(
        'bike',
        'building',
        'fence',
        'others',
        'person',
        'pole',
        'road',
        'sidewalk',
        'traffic_sign',
        'vegetation',
        'vehicle',
        'bridge',
        'rider',
        'sky',
    ),
    # Those of the label images of the real part, which are read by them.
    colors=(
        (168, 198, 168),
        (198, 0, 0),
        (202, 154, 198),
        (0, 0, 0),
        (100, 198, 198),
        (198, 100, 0),
        (52, 42, 198),
        (154, 52, 192),
        (198, 0, 168),
        (0, 198, 0),
        (198, 186, 90),
        (108, 107, 161),
        (156, 200, 26),
        (158, 179, 202),
    ),
)

ZJU_RGB_P = _space('zju_rgb_p', 'building glass car road tree sky pedestrian bicycle')
ZJU_RGB_P9 = _space(
    'zju_rgb_p9', 'background building glass car road tree sky pedestrian bicycle', 0
)
