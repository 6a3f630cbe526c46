"""Procedural scenes with MFNet's nine classes, for training and tests without any data.

A scene is a road with buildings, trees, street lamps and objects of every class. It is drawn for
several cameras: RGB shows the light that is reflected (head lights, street lamps, and by day the
sky), thermal shows the temperature, and others, which are rendered only where they are asked for,
show what is told below. Three quarters of the scenes are at night.

Neither RGB nor thermal is sufficient. At night, each object or group of objects is visible in

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

Of the moving cars, 60 % are visible in both, and the table applies to the rest. By day the figures
are 70, 22 and 8 % for every class. In the modality in which an object is not visible, 5 % of its
contrast with the surroundings is left. As in MFNet, `curve` is a kerb or a line along the edge of
the road, `car_stop` is an obstacle for cars (post, block, fence, low bar), and other paint on the
road is unlabeled.

The other cameras see the same geometry from the same place. This table does not apply to them:

| modality | depends on | sees | does not see |
|---|---|---|---|
| depth | distance | every upright object, in any light | paint on the ground: `curve`, `bump` |
| event | motion, edges | what moves, also where RGB is dark | what stays in its place, far things |
| polarization | light, material, slope | glass, car bodies, wet road | matte things, the dark |
| light field | light, distance | what RGB sees, with parallax | what RGB does not see |

See `depth_camera`, `event_camera`, `polarization_camera` and `camera_array`.

Seed and size determine a frame completely.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from copy import copy

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Condition, Frame
from sartm_model.data.synthetic.builder import build
from sartm_model.data.synthetic.cameras import check_given, shoot
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET

NIGHT_FRACTION = 0.75
"""The fraction of night scenes among those rendered without a `condition`."""

SPLITS = {
    'train': (0, 4000),
    'val': (1, 200),
    'test': (2, 100),
    'train_near': (3, 2000),
    'test_near': (4, 100),
}
"""For each split, the first number of its seeds and its default number of frames.

In the 100 frames of the test split each class occurs dozens of times, and a CPU evaluates them in a
minute. The scenes of the last two have objects from 1.2 metres on, many of them cut off by the
image; in the others persons, cars and bicycles are 7 metres away or more.
"""


def render(
    seed: int | tuple[int, ...],
    height: int = 480,
    width: int = 640,
    *,
    condition: Condition | None = None,
    modalities: Collection[str] = ('rgb', 'thermal'),
    near: bool = False,
) -> Frame:
    """Render one scene.

    Args:
        seed: determines the scene, together with the size; a tuple of integers is a seed too.
        height, width: at least 16 pixels each.
        condition: 'day' or 'night'; None lets the seed determine it.
        modalities: the images to render, some of `cameras.GIVEN`. An image does not depend on
            which others are rendered.
        near: add objects close to the camera.

    Returns:
        A frame with a raw image of each modality, thermal as uint8 `[H, W]`, and labels uint8
        `[H, W]`, all of them class ids (no 255).

    Raises:
        SartmError: the size is too small, or the scenes do not have a modality.
    """
    drive = render_sequence(
        seed, 1, height, width, condition=condition, modalities=modalities, near=near
    )
    return next(drive)


def render_sequence(
    seed: int | tuple[int, ...],
    frames: int,
    height: int = 480,
    width: int = 640,
    *,
    rate_hz: float = 10.0,
    condition: Condition | None = None,
    modalities: Collection[str] = ('rgb', 'thermal'),
    near: bool = False,
) -> Iterator[Frame]:
    """Render a drive through one scene, in which people and cars move too.

    Args:
        seed, height, width, condition, modalities, near: as for `render`.
        frames: number of frames.
        rate_hz: frame rate.

    Yields:
        Frames named `<seed>_<index>`; a single frame has the name of the seed.

    Raises:
        SartmError: as for `render`.
    """
    check_given(modalities)
    if height < 16 or width < 16:
        raise SartmError(f'a scene of {width}x{height} pixels is too small; expected 16x16 or more')
    parts = (seed,) if isinstance(seed, int) else tuple(seed)
    # The number of parts comes first, because NumPy treats the seeds 5 and (5, 0) as equal.
    key = (len(parts), *parts)
    rng = np.random.default_rng((*key, 0))
    night = rng.random() < NIGHT_FRACTION
    if condition is not None:
        night = condition == 'night'
    scene = build(rng, night, duration_s=(frames - 1) / rate_hz, near=near)
    stem = '_'.join(f'{part:06d}' for part in parts)
    for index in range(frames):
        time_s, size = index / rate_hz, (height, width)
        images, labels = shoot(scene, time_s, size, modalities, key, index)
        yield Frame(
            name=stem if frames == 1 else f'{stem}_{index:04d}',
            images=images,
            labels=labels,
            condition='night' if night else 'day',
        )


class SyntheticScenes(FrameDataset):
    """The scenes of a split as a data set of RGB and thermal; `with_modalities` changes these.

    No two splits have a seed in common.

    Args:
        split: one of `SPLITS`.
        length: number of scenes; the default of `SPLITS` if None.
        height, width: size of the images in pixels.

    Raises:
        SartmError: the split is unknown, the length is below 1, or the size too small.
    """

    label_space = MFNET

    def __init__(
        self, split: str, length: int | None = None, height: int = 480, width: int = 640
    ) -> None:
        if split not in SPLITS:
            raise SartmError(
                f'the synthetic scenes have no split {split!r}; expected one of {", ".join(SPLITS)}'
            )
        self._first, default = SPLITS[split]
        length = default if length is None else length
        if length < 1:
            raise SartmError(f'{length} synthetic scenes requested; expected 1 or more')
        self._near = split.endswith('_near')
        self._size = (height, width)
        self._modalities: tuple[str, ...] = ('rgb', 'thermal')
        self.names = [f'{self._first:06d}_{index:06d}' for index in range(length)]

    def __getitem__(self, index: int) -> Frame:
        number = range(len(self))[index]  # raises IndexError as a sequence does
        return render(
            (self._first, number), *self._size, modalities=self._modalities, near=self._near
        )

    def with_modalities(self, modalities: Collection[str]) -> SyntheticScenes:
        """Return the same scenes with images of these modalities.

        Raises SartmError if the scenes do not have one.
        """
        check_given(modalities)
        scenes = copy(self)
        scenes._modalities = tuple(modalities)
        return scenes
