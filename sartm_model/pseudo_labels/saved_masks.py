"""Segments that SAM's own script has written: a folder an image, a binary PNG a mask."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from sartm_model.errors import SartmError
from sartm_model.pseudo_labels.segments import RANKINGS, Segment, segment_of

TABLE = 'metadata.csv'
COLUMNS = {'predicted_iou': 'predicted_iou', 'stability': 'stability_score'}
"""Score -> its column in the table that SAM's script writes beside the masks."""


@dataclass(frozen=True)
class SavedMasks:
    """Reads the masks `root/NAME/0.png`, `1.png`, ... of an image NAME, 255 inside and 0 outside.

    The scores come from `metadata.csv`. Without it, the order of the numbers stands for falling
    predicted IoU, the order in which SAM writes the masks.

    Raises:
        SartmError: `root` is no folder.
    """

    rankings: ClassVar[tuple[str, ...]] = RANKINGS

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise SartmError(f'{self.root} does not exist; expected a folder with masks by image')

    def __call__(self, image: np.ndarray, name: str) -> list[Segment]:
        """Return the segments of an image `[H, W]` in the order of their numbers.

        Raises:
            SartmError: the image has no folder, or a mask cannot be read or has another size.
        """
        folder = self.root / name
        if not folder.is_dir():
            raise SartmError(f'{folder} does not exist; expected the masks 0.png, 1.png, ...')
        paths = [path for path in folder.glob('*.png') if path.stem.isdecimal()]
        scores = _scores(folder / TABLE)
        segments = []
        for path in sorted(paths, key=lambda path: int(path.stem)):
            mask = _read_mask(path)
            if mask.shape != image.shape:
                (height, width), (rows, columns) = mask.shape, image.shape
                raise SartmError(
                    f'{path} is {width}x{height}, but its image is {columns}x{rows}; expected the '
                    'masks of this image'
                )
            segment = segment_of(mask, scores.get(int(path.stem), {'predicted_iou': 0.0}))
            if segment is not None:
                segments.append(segment)
        return segments


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert('L')) == 255
    except (OSError, SyntaxError, ValueError) as error:
        raise SartmError(f'{path} cannot be read as a mask: {error}') from error


def _scores(path: Path) -> dict[int, dict[str, float]]:
    """Return the scores of each mask by its number; none if there is no table."""
    if not path.exists():
        return {}
    try:
        with path.open(newline='', encoding='utf-8') as file:
            return {
                int(row['id']): {name: float(row[column]) for name, column in COLUMNS.items()}
                for row in csv.DictReader(file)
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SartmError(
            f'{path} is not a table as SAM writes it ({error!r}); expected the columns id, '
            f'{", ".join(COLUMNS.values())}'
        ) from error
