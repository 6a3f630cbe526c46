"""Procedural night scenes in MFNet's nine classes, to train and to test without any data.

A road in perspective with buildings, trees, street lamps and things of every class is drawn as
two cameras would see it: RGB by the light that falls on it (head lights, street lamps, little
else), thermal by how warm it is. Three of four scenes are at night.

Neither modality is enough. At night each thing (each group, where things come in groups) shows in

| class | both | RGB alone | thermal alone |
|---|---|---|---|
| car | 50 % | 20 % | 30 % |
| person | 50 % | 5 % | 45 % |
| bike | 40 % | 35 % | 25 % |
| curve | 35 % | 45 % | 20 % |
| car_stop | 35 % | 40 % | 25 % |
| guardrail | 40 % | 35 % | 25 % |
| color_cone | 35 % | 45 % | 20 % |
| bump | 30 % | 45 % | 25 % |

(of the moving cars, 60 % are made to show in both before this is drawn), and by day 70, 22 and
8 % for every class. 'Alone' means that 5 % of its contrast to what surrounds it is left in the
other modality. As in MFNet, `curve` is a kerb or a line along the road's edge, `car_stop` is what
keeps cars out (posts, blocks, fences, low bars), and other paint on the road is unlabeled.

A frame is determined by its seed and size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Condition, Frame
from sartm_model.data.synthetic.builder import build
from sartm_model.data.synthetic.paint import paint
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET

NIGHT_FRACTION = 0.75
"""How much of what is drawn without a `condition` is at night."""

SPLITS = {'train': (0, 4000), 'val': (1, 200), 'test': (2, 100)}
"""Of each split: the number its seeds start with, and how many frames it has by default.

The default test split has 100 frames: enough for each class to occur dozens of times, few enough
to be evaluated in a minute on a CPU.
"""


def render(
    seed: int | tuple[int, ...],
    height: int = 480,
    width: int = 640,
    *,
    condition: Condition | None = None,
) -> Frame:
    """One scene: rgb uint8 `[H, W, 3]`, thermal uint8 `[H, W]`, labels uint8 `[H, W]` (no 255).

    Args:
        seed: determines the scene; a tuple of ints is a seed of its own.
        height, width: at least 16 pixels each.
        condition: 'day' or 'night'; drawn with the seed if None.

    Raises:
        SartmError: the size is too small.
    """
    return next(render_sequence(seed, 1, height, width, condition=condition))


def render_sequence(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 480,
    width: int = 640,
    *,
    rate_hz: float = 10.0,
    condition: Condition | None = None,
) -> Iterator[Frame]:
    """A drive through one scene: the camera moves at walking pace and people and cars move too.

    Frames are named `<seed>_<place in the sequence>`; a sequence of one has the name of its seed.
    The arguments and what is raised are those of `render`.
    """
    if height < 16 or width < 16:
        raise SartmError(f'a scene of {width}x{height} pixels is too small; 16x16 is the least')
    parts = (seed,) if isinstance(seed, int) else tuple(seed)
    # The number of parts leads, because a seed sequence takes 5 and (5, 0) for the same.
    key = (len(parts), *parts)
    rng = np.random.default_rng((*key, 0))
    night = rng.random() < NIGHT_FRACTION
    if condition is not None:
        night = condition == 'night'
    scene = build(rng, night, duration_s=(frames - 1) / rate_hz)
    stem = '_'.join(f'{part:06d}' for part in parts)
    for index in range(frames):
        canvas = paint(scene, index / rate_hz, height, width)
        noise = np.random.default_rng((*key, 1, index))
        rgb, thermal = scene.sensor.expose(canvas, noise)
        yield Frame(
            name=stem if frames == 1 else f'{stem}_{index:04d}',
            rgb=rgb,
            thermal=thermal,
            labels=canvas.labels,
            condition='night' if night else 'day',
        )


class SyntheticScenes(PairDataset):
    """`length` scenes of a split; the splits share no seed.

    Raises:
        SartmError: unknown split, or no frames.
    """

    label_space = MFNET

    def __init__(
        self, split: str, length: int | None = None, height: int = 480, width: int = 640
    ) -> None:
        if split not in SPLITS:
            raise SartmError(
                f'the synthetic scenes have no split {split!r}; choose one of {", ".join(SPLITS)}'
            )
        self._first, default = SPLITS[split]
        length = default if length is None else length
        if length < 1:
            raise SartmError(f'{length} synthetic scenes were asked for; 1 is the least')
        self._size = (height, width)
        self.names = [f'{self._first:06d}_{index:06d}' for index in range(length)]

    def __getitem__(self, index: int) -> Frame:
        place = range(len(self))[index]  # IndexError where a sequence would raise one
        return render((self._first, place), *self._size)
