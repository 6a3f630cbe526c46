"""The true ids of a bag's pairs, from a folder or from a topic.

If a folder has a file `stamps.csv`, its labels are matched by stamp: the first line is
`stamp_ns,file`, each further line has the header stamp of an RGB image in nanoseconds and the label
image of that stamp, relative to the folder. RGB images that it does not list have no ground truth.
Without that file labels are matched by order: the folder has as many label images as the bag has
RGB images, and the first name belongs to the first image.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sartm_model.data.file_frames import images_in
from sartm_model.errors import SartmError
from sartm_model.utils.image_io import read_labels
from sartm_ros.bag.reading import BagPair
from sartm_ros.messages.images import to_thermal

STAMPS_FILE = 'stamps.csv'
_COLUMNS = ['stamp_ns', 'file']

GroundTruth = Callable[[BagPair], 'np.ndarray | None']
"""Returns the true ids of a pair, uint8 `[H, W]`, or None if they are not known."""


def ground_truth_from_folder(folder: Path, classes: int, messages: int) -> GroundTruth:
    """Return the ground truth of a folder, by stamp or by order; see the module's docstring.

    Args:
        folder: of label images with ids below `classes`.
        classes: the number of classes.
        messages: the number of RGB images in the bag, or of thermal ones if they are alone.

    Raises SartmError if the list of stamps is faulty, or if labels are matched by order and there
    are not `messages` of them.
    """
    if not folder.is_dir():
        raise SartmError(f'{folder} is not a folder; expected one of label images')
    if (folder / STAMPS_FILE).exists():
        by_stamp = read_stamps(folder / STAMPS_FILE)

        def with_stamp(pair: BagPair) -> np.ndarray | None:
            file = None if pair.index is None else by_stamp.get(pair.header_ns)
            return None if file is None else read_labels(file, classes)

        return with_stamp
    files = list(images_in(folder).values())
    if len(files) != messages:
        raise SartmError(
            f'{folder} has {len(files)} label images but the bag has {messages} images of the '
            'camera that they belong to, RGB unless thermal is alone; '
            f'expected one each, in the same order, or {STAMPS_FILE} in the folder'
        )
    return lambda pair: None if pair.index is None else read_labels(files[pair.index], classes)


def ground_truth_from_topic(pair: BagPair) -> np.ndarray | None:
    """Decode the labels message of a pair, raw or PNG. Raises SartmError if it is damaged."""
    if pair.labels is None:
        return None
    encoding = getattr(pair.labels, 'format', '')
    if 'jpeg' in encoding or 'jpg' in encoding:
        raise SartmError(f'true ids are compressed as {encoding!r}, which changes them; use PNG')
    return to_thermal(pair.labels)


def read_stamps(path: Path) -> dict[int, Path]:
    """Read a list of stamps and return the label file of each stamp in nanoseconds.

    Raises SartmError, naming the line, if a line does not have two columns, its stamp is not a
    whole number or is listed twice, or its file does not exist.
    """
    files: dict[int, Path] = {}
    try:
        lines = list(csv.reader(path.read_text(encoding='utf-8-sig').splitlines()))
    except UnicodeDecodeError as error:
        raise SartmError(f'{path} is not text in UTF-8: {error}') from None
    if not lines or lines[0] != _COLUMNS:
        raise SartmError(f'{path} does not begin with the line {",".join(_COLUMNS)}')
    for number, cells in enumerate(lines[1:], start=2):
        if not cells:
            continue
        where = f'{path}, line {number}'
        if len(cells) != 2 or not cells[0].strip().isdecimal():
            raise SartmError(
                f'{where} is {",".join(cells)!r}; expected a stamp in nanoseconds and a file'
            )
        stamp_ns, file = int(cells[0]), path.parent / cells[1].strip()
        if stamp_ns in files:
            raise SartmError(f'{where} lists the stamp {stamp_ns} a second time')
        if not file.is_file():
            raise SartmError(f'{where}: there is no file {file}')
        files[stamp_ns] = file
    return files
