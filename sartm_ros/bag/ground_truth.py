"""The true ids of a bag's pairs: from a folder, by stamp or by order, or from a topic.

A folder with a file `stamps.csv` goes by stamp: its first line is `stamp_ns,file`, each further one
the header stamp of an RGB image in nanoseconds and the label image of that stamp, relative to the
folder. RGB images that it does not name have no truth. Any other folder goes by order: as many
label images as the bag has RGB images, the first name for the first image.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sartm_model.data.folder import images_in
from sartm_model.data.image_io import read_labels
from sartm_model.errors import SartmError
from sartm_ros.bag.reading import BagPair
from sartm_ros.messages.images import to_thermal

STAMPS = 'stamps.csv'
_COLUMNS = ['stamp_ns', 'file']

Truth = Callable[[BagPair], 'np.ndarray | None']


def folder_truth(folder: Path, classes: int, rgb_messages: int) -> Truth:
    """The truth of a folder, in which ids are below `classes`; see the module's text.

    Raises SartmError where the list is faulty, or there are not `rgb_messages` label images.
    """
    if not folder.is_dir():
        raise SartmError(f'{folder} is not a folder; expected one of label images')
    if (folder / STAMPS).exists():
        by_stamp = read_stamps(folder / STAMPS)

        def of_stamp(pair: BagPair) -> np.ndarray | None:
            file = None if pair.rgb is None else by_stamp.get(pair.stamp_ns)
            return None if file is None else read_labels(file, classes)

        return of_stamp
    files = list(images_in(folder).values())
    if len(files) != rgb_messages:
        raise SartmError(
            f'{folder} has {len(files)} label images but the bag has {rgb_messages} RGB images; '
            f'expected one each, in the same order, or {STAMPS} in the folder'
        )
    return lambda pair: None if pair.index is None else read_labels(files[pair.index], classes)


def topic_truth(pair: BagPair) -> np.ndarray | None:
    """The truth that came with a pair, raw or compressed. Raises SartmError where it is damaged."""
    if pair.labels is None:
        return None
    kind = getattr(pair.labels, 'format', '')
    if 'jpeg' in kind or 'jpg' in kind:
        raise SartmError(f'true ids came as {kind!r}, which changes them; expected PNG')
    return to_thermal(pair.labels)


def read_stamps(path: Path) -> dict[int, Path]:
    """The label file of each stamp in nanoseconds, as the list `path` says.

    Raises SartmError that names the line: it is not of two columns, its stamp is not a whole number
    or was there before, its file does not exist.
    """
    files: dict[int, Path] = {}
    try:
        lines = list(csv.reader(path.read_text(encoding='utf-8').splitlines()))
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
            raise SartmError(f'{where} names the stamp {stamp_ns} for a second time')
        if not file.is_file():
            raise SartmError(f'{where}: there is no file {file}')
        files[stamp_ns] = file
    return files
