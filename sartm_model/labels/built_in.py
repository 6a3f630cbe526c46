"""The label spaces of the published sets of thermal images."""

from __future__ import annotations

import colorsys

from sartm_model.labels.space import LabelSpace

_COLORS = {
    'road': (128, 64, 128),
    'sidewalk': (244, 35, 232),
    'building': (70, 70, 70),
    'wall': (102, 102, 156),
    'fence': (190, 153, 153),
    'pole': (153, 153, 153),
    'traffic_light': (250, 170, 30),
    'traffic_sign': (220, 220, 0),
    'vegetation': (107, 142, 35),
    'terrain': (152, 251, 152),
    'sky': (70, 130, 180),
    'person': (220, 20, 60),
    'rider': (255, 0, 0),
    'car': (0, 0, 142),
    'truck': (0, 0, 70),
    'bus': (0, 60, 100),
    'train': (0, 80, 100),
    'motorcycle': (0, 0, 230),
    'bicycle': (119, 11, 32),
    'fire_extinguisher': (220, 30, 30),
    'backpack': (40, 170, 60),
    'hand_drill': (50, 110, 240),
    'survivor': (240, 180, 40),
    'tree': (107, 142, 35),
    'grass': (152, 251, 152),
    'door': (150, 100, 60),
    'table': (200, 150, 90),
    'chair': (240, 190, 130),
    'lamp': (250, 230, 120),
    'monitor': (90, 200, 250),
    'traffic_cone': (255, 120, 20),
    'trash_can': (90, 140, 120),
    'animal': (180, 60, 200),
    'river': (40, 90, 220),
}
"""Colours of common classes; those of Cityscapes for its classes."""

# Steps of this fraction of the colour circle keep successive hues far apart.
_GOLDEN_RATIO = 0.618034


def make_space(name: str, classes: str, background_id: int | None = None) -> LabelSpace:
    """Make a label space of class names separated by blanks.

    The background is black, common classes have their colours, and others get a hue each.
    """
    names = tuple(classes.split())
    colors = []
    for id_, class_name in enumerate(names):
        level = (1.0, 0.8, 0.6)[id_ % 3]
        red, green, blue = colorsys.hsv_to_rgb(id_ * _GOLDEN_RATIO % 1, 0.75, level)
        hue = (round(255 * red), round(255 * green), round(255 * blue))
        colors.append((0, 0, 0) if id_ == background_id else _COLORS.get(class_name, hue))
    return LabelSpace(name, names, tuple(colors), background_id)


MFNET = LabelSpace(
    name='mfnet',
    classes=(
        'unlabeled',
        'car',
        'person',
        'bike',
        'curve',
        'car_stop',
        'guardrail',
        'color_cone',
        'bump',
    ),
    # Brighter than the data set's own colours, which are invisible over night images.
    colors=(
        (0, 0, 0),
        (160, 80, 255),
        (255, 210, 0),
        (0, 190, 255),
        (70, 100, 255),
        (170, 180, 60),
        (120, 200, 170),
        (255, 130, 140),
        (255, 110, 20),
    ),
    background_id=0,
)

PST900 = make_space(
    'pst900',
    'background fire_extinguisher backpack hand_drill survivor',
    background_id=0,
)

FMB = make_space(
    'fmb',
    'background road sidewalk building traffic_light traffic_sign vegetation sky person '
    'car truck bus motorcycle bicycle pole',
    background_id=0,
)

SODA = make_space(
    'soda',
    'background person building tree road pole grass door table chair car bicycle lamp '
    'monitor traffic_cone trash_can animal fence sky river sidewalk',
    background_id=0,
)

SCUT_SEG = make_space(
    'scut_seg',
    'background road person rider car truck fence tree bus pole',
    background_id=0,
)

CITYSCAPES = make_space(
    'cityscapes',
    'road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain '
    'sky person rider car truck bus train motorcycle bicycle',
)
