"""Scenes of the generator with chosen objects, and images of them without further randomness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sartm_model.data.synthetic.builder import build
from sartm_model.data.synthetic.scene import Scene, SceneObject


def scene_of(*things: SceneObject, seed: int = 4, night: bool = False, **changes) -> Scene:
    """Return a scene on a straight road with no other objects than these.

    Args:
        things: the objects.
        seed: of all else.
        night: whether it is at night.
        changes: other attributes of `Scene`.
    """
    scene = build(np.random.default_rng(seed), night, duration_s=0.0)
    changes = {'curvature': 0.0, 'offset_m': 0.0, **changes}
    return replace(scene, objects=list(things), lamps=np.zeros((0, 4)), **changes)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
