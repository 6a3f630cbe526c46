"""The label spaces of the published sets of RGB with depth, events, polarisation, light fields."""

from __future__ import annotations

from sartm_model.labels.built_in import make_space
from sartm_model.labels.space import LabelSpace

DELIVER = make_space(
    'deliver',
    'building fence other pedestrian pole road_line road sidewalk vegetation cars wall '
    'traffic_sign sky ground bridge rail_track ground_rail traffic_light static dynamic water '
    'terrain two_wheeler bus truck',
)

NYUV2 = make_space(
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

ZJU_RGB_P = make_space('zju_rgb_p', 'building glass car road tree sky pedestrian bicycle')
ZJU_RGB_P9 = make_space(
    'zju_rgb_p9', 'background building glass car road tree sky pedestrian bicycle', 0
)
