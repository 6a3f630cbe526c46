"""UrbanLF (Sheng et al., TCSVT 2022): light fields of 9x9 views, a real and a synthetic part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from sartm_model.data.folder import FrameFiles
from sartm_model.data.label_map import LabelMap, map_of_colors
from sartm_model.data.listed import ListedFrames
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID, URBANLF
from sartm_model.modalities.light_field import ROW, VIEW

CENTRE = '5_5'


class UrbanLfReal(ListedFrames):
    """`<split>/<scene>/r_c.png` and `label.png`, in whose colours the classes are.

    The root is that folder of splits, or the folder `real` is in it. An unknown colour is a fault:
    it is no class, and must not become the first one. A frame of `test` may lack its labels.
    """

    title = 'UrbanLF real'
    classes = URBANLF
    folder: ClassVar[str] = 'real'
    label_file: ClassVar[str] = 'label.png'
    raw_ids: ClassVar = replace(map_of_colors(URBANLF), advice='which UrbanLF does not use')
    SPLITS = ('train', 'val', 'test')
    NUM_DISJOINT = 3

    @classmethod
    def find(cls, root: Path, split: str) -> dict[str, FrameFiles]:
        """Return the files of each frame of a split, whether they exist or not."""
        cls.check_split(split)
        base = cls._base(root) / split
        centres = sorted(base.glob(f'*/{CENTRE}.png'))
        if not centres:
            raise SartmError(
                f'{base} has no scene with the central view {CENTRE}.png; expected '
                f'{cls.folder}/<split>/<scene>/{CENTRE}.png'
            )
        files = {}
        for centre in centres:
            scene = centre.parent
            images = {
                'rgb': centre,
                'light_field': scene / f'{VIEW}.png',
                'light_field_row': scene / f'{ROW[0]}.png',
            }
            labels = scene / cls.label_file
            is_hidden = split == 'test' and not labels.exists()
            files[scene.name] = FrameFiles(images, None if is_hidden else labels)
        return files

    @classmethod
    def images(cls, root: Path) -> list[Path]:
        """Return all central views."""
        return sorted(cls._base(root).rglob(f'{CENTRE}.png'))

    @classmethod
    def _base(cls, root: Path) -> Path:
        inside = root / cls.folder
        return inside if inside.is_dir() else root


class UrbanLfSyn(UrbanLfReal):
    """The synthetic part, `Syn`: ids plus 1 in `5_5_label.npy`; 0 and 255 are not labelled."""

    title = 'UrbanLF Syn'
    folder = 'Syn'
    label_file = f'{CENTRE}_label.npy'
    raw_ids: ClassVar = LabelMap(
        {0: IGNORE_ID, IGNORE_ID: IGNORE_ID, **{id_ + 1: id_ for id_ in range(len(URBANLF))}},
        advice='which UrbanLF does not use; expected 0 to 14 or 255',
    )
