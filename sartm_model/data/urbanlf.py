"""UrbanLF (Sheng et al., TCSVT 2022): light fields of 9x9 views, a real and a synthetic part.

The views are `<split>/<scene>/r_c.png`. The root is the folder of splits, or the folder `real` or
`Syn` is in it. A frame of `test` may lack its labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sartm_model.data.file_frames import FrameFiles
from sartm_model.data.label_map import LabelMap, ids_plus_one, map_of_colors
from sartm_model.data.published import PublishedDataset, folder_in
from sartm_model.errors import SartmError
from sartm_model.labels import URBANLF
from sartm_model.modalities.light_field import ROW, VIEW

CENTRE = '5_5'


def _dataset(title: str, folder: str, label_file: str, label_map: LabelMap) -> PublishedDataset:
    """Return a part of the data set, the folder that may be in its root, and the file of labels."""

    def find(root: Path, split: str) -> dict[str, FrameFiles]:
        base = folder_in(root, folder) / split
        centres = sorted(base.glob(f'*/{CENTRE}.png'))
        if not centres:
            raise SartmError(
                f'{base} has no scene with the central view {CENTRE}.png; expected '
                f'{folder}/<split>/<scene>/{CENTRE}.png'
            )
        files = {}
        for centre in centres:
            scene = centre.parent
            images = {
                'rgb': centre,
                'light_field': scene / f'{VIEW}.png',
                'light_field_row': scene / f'{ROW[0]}.png',
            }
            labels = scene / label_file
            is_hidden = split == 'test' and not labels.exists()
            files[scene.name] = FrameFiles(images, None if is_hidden else labels)
        return files

    return PublishedDataset(
        title,
        URBANLF,
        find,
        splits=('train', 'val', 'test'),
        first_images=lambda root: sorted(folder_in(root, folder).rglob(f'{CENTRE}.png')),
        label_map=label_map,
    )


# The classes are in the colours of the label images. An unknown colour is a fault: it is no class,
# and must not become the first one.
REAL = _dataset(
    'UrbanLF real',
    'real',
    'label.png',
    replace(map_of_colors(URBANLF), advice='which UrbanLF does not use'),
)
# The label files hold ids plus 1; 0 and 255 are not labelled.
SYNTHETIC = _dataset(
    'UrbanLF Syn',
    'Syn',
    f'{CENTRE}_label.npy',
    LabelMap(
        ids_plus_one(URBANLF),
        advice='which UrbanLF does not use; expected 0 to 14 or 255',
    ),
)
