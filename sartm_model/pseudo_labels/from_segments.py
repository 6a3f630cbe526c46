"""Labels unlabelled thermal images by their segments, to pretrain a network on them (SATIR).

The result is a data set `folder`:

    images/NAME.*     a link to each image, or the image itself if it comes from a bag
    labels/NAME.png   its labels
    train.txt, data.yaml, manifest.json, sheet.png

An interrupted run is continued by the same command. The images may be shared out among several
processes with the same folder; the one that ends last describes all of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from sartm_model.data.frame_list import list_of_stems
from sartm_model.errors import SartmError
from sartm_model.evaluation.contact_sheet import Row, contact_sheet, png_bytes
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_range import has_8_bits
from sartm_model.modalities.thermal_valid import invalid_pixels
from sartm_model.pseudo_labels.declare import FILE, LIST, MANIFEST, declaration, manifest
from sartm_model.pseudo_labels.segments import LabelRules, Segment, label_image
from sartm_model.utils.files import write_file
from sartm_model.utils.image_io import SUFFIXES, has_colors, read_labels
from sartm_model.utils.visualization import encode

LOCK = '.lock'
SHEET_ROWS = 12


class SegmentSource(Protocol):
    """Divides images into segments.

    Attributes:
        rankings: which of `segments.RANKINGS` its segments can be ranked by.
    """

    rankings: ClassVar[tuple[str, ...]]

    def __call__(self, image: np.ndarray, name: str) -> list[Segment]:
        """Return the segments of a scaled image `[H, W]` of that name.

        Their order decides between equal scores. Raises SartmError if there is none to be had.
        """


class SourceImage(NamedTuple):
    """An image to label.

    Attributes:
        name: of its files in the result.
        path: its file; None if it has none of its own.
        read: returns the raw image; raises SartmError if it cannot be read.
    """

    name: str
    path: Path | None
    read: Callable[[], np.ndarray]


class Shard(NamedTuple):
    """One of several runs that share the images of a folder; `number` counts from 1."""

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read '2/4', the second of four runs. Raises SartmError for anything else."""
        number, slash, total = text.partition('/')
        if not (slash and number.isdecimal() and total.isdecimal()):
            raise SartmError(f'shard {text!r}; expected a number of all of them, such as 2/4')
        shard = cls(int(number), int(total))
        if not 1 <= shard.number <= shard.total:
            raise SartmError(f'shard {text}; expected a number from 1 to {shard.total}')
        return shard


@dataclass(frozen=True)
class Outcome:
    """What a run has done: the numbers of images, and the faults by the image's name.

    Of the images labelled, `colored` have an 8-bit file whose channels differ.
    """

    labelled: int
    colored: int
    already_there: int
    faults: Mapping[str, str]


def images_below(root: Path, out: Path) -> list[SourceImage]:
    """Return the thermal images in a folder and in the folders in it, sorted by path.

    A name is the path without suffix, with `__` for each `/`. The folder of the result, `out`, may
    lie in `root`; what is in it is left out.

    Raises:
        SartmError: there is no image, or two have the same name.
    """
    if not root.is_dir():
        raise SartmError(f'{root} is no folder; expected a folder with images')
    found: dict[str, Path] = {}
    root, out = root.resolve(), out.resolve()
    for path in sorted(root.rglob('*')):
        relative = path.relative_to(root)
        hidden = any(part.startswith('.') for part in relative.parts)
        is_result = out != root and out in path.parents
        is_image = path.suffix.lower() in SUFFIXES and path.is_file()
        if hidden or is_result or not is_image:
            continue
        name = '__'.join(relative.with_suffix('').parts)
        if name in found:
            raise SartmError(f'{found[name]} and {path} would both be {name}; rename one of them')
        found[name] = path
    if not found:
        raise SartmError(f'{root} has no images; expected files named {", ".join(SUFFIXES)}')
    thermal = MODALITIES['thermal']
    return [SourceImage(name, path, partial(thermal.read, path)) for name, path in found.items()]


def label_images(
    images: Iterable[SourceImage],
    num_images: int,
    source: SegmentSource,
    rules: LabelRules,
    out: Path,
    settings: Mapping[str, Any],
    shard: Shard = Shard(),  # noqa: B008
) -> Outcome:
    """Label the images of a shard that are not labelled yet, and describe all that are.

    An image that cannot be read or segmented is reported on stderr and left out.

    Args:
        images: of all shards.
        num_images: how many they are.
        source: gives the segments of an image.
        rules: how they become labels.
        out: the folder of the result.
        settings: what the manifest says of the source. With the rules, they must be those of an
            earlier run in this folder.
        shard: which of the images this run labels.

    Raises:
        SartmError: the source has no scores to rank by; `out` has labels of other settings or is
            another folder; no image is labelled.
    """
    if rules.ranking not in source.rankings:
        raise SartmError(
            f'the segments of {settings["source"]} have no {rules.ranking}; rank them by '
            f'{" or ".join(source.rankings)}'
        )
    settings = json.loads(json.dumps({**settings, **asdict(rules)}))
    _claim(out, settings)
    thermal = MODALITIES['thermal']
    labelled = colored = already_there = 0
    faults: dict[str, str] = {}
    mine = (image for i, image in enumerate(images) if i % shard.total == shard.number - 1)
    num_mine = len(range(shard.number - 1, num_images, shard.total))
    for image in tqdm(mine, total=num_mine, unit='image', disable=None):
        path = out / 'labels' / f'{image.name}.png'
        if path.exists():
            already_there += 1
            continue
        try:
            raw = image.read()
            scaled = thermal.scale(raw).astype(np.float32)
            sees_nothing = invalid_pixels(to_counts(raw), has_8_bits(raw))
            labels = label_image(source(scaled, image.name), scaled, rules, ~sees_nothing)
        except SartmError as error:
            faults[image.name] = str(error)
            print(f'{image.name} is left out: {error}', file=sys.stderr)
            continue
        _place(image, raw, out / 'images')
        write_file(path, encode(labels))
        labelled += 1
        colored += raw.dtype == np.uint8 and image.path is not None and has_colors(image.path)
    # One at a time: the last run to come here then finds the labels of all others.
    with _locked(out):
        _describe(out, rules.label_space(), settings, num_images)
    return Outcome(labelled, colored, already_there, faults)


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new folder, or compare them with those of an earlier run."""
    path = out / MANIFEST
    if not path.exists():
        # Another shard may be writing the manifest at this moment, first under a hidden name.
        if out.exists() and any(MANIFEST not in file.name for file in out.iterdir()):
            raise SartmError(f'{out} has other files in it; expected a new folder')
        write_file(path, json.dumps({'settings': settings}, indent=2) + '\n')
        return
    try:
        earlier = json.loads(path.read_text(encoding='utf-8'))['settings']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SartmError(f'{path} cannot be read ({error!r}); remove {out}') from error
    differ = [
        f'{name} was {earlier.get(name)!r} and is now {settings.get(name)!r}'
        for name in dict.fromkeys([*earlier, *settings])
        if earlier.get(name) != settings.get(name)
    ]
    if differ:
        raise SartmError(
            f'{out} has labels of other settings ({"; ".join(differ)}); remove it or choose '
            'another folder'
        )


def _place(image: SourceImage, raw: np.ndarray, folder: Path) -> None:
    """Put the image into the folder: a link to its file, or a file of its own."""
    if image.path is None:
        write_file(folder / f'{image.name}.png', encode(raw))
        return
    folder.mkdir(exist_ok=True)
    link = folder / f'{image.name}{image.path.suffix}'
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(image.path.resolve(), folder.resolve()))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for other processes that are in such a block with the same folder."""
    with (folder / LOCK).open('w') as file:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _describe(out: Path, space: LabelSpace, settings: Mapping[str, Any], num_images: int) -> None:
    """Write the list, the declaration, the manifest and the sheet of all images labelled so far."""
    names = sorted(path.stem for path in (out / 'labels').glob('[!.]*.png'))
    if not names:
        raise SartmError(f'none of {num_images} images could be labelled')
    counts = np.zeros(256, np.int64)
    for name in names:
        labels = read_labels(out / 'labels' / f'{name}.png', len(space))
        counts += np.bincount(labels.ravel(), minlength=256)
    write_file(out / LIST, list_of_stems(names))
    write_file(out / FILE, declaration(space, {'thermal': 'images/{stem}.*'}))
    write_file(out / 'sheet.png', _sheet(out, names, space, settings))
    write_file(out / MANIFEST, manifest(settings, space, num_images, len(names), counts))


def _sheet(out: Path, names: list[str], space: LabelSpace, settings: Mapping[str, Any]) -> bytes:
    """Draw images, evenly chosen, beside their labels."""
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, SHEET_ROWS).round().astype(int)]
    rows = list(_rows(out, list(dict.fromkeys(chosen)), space))
    title = f'Labels by {settings["source"]} segments, ranked by {settings["ranking"]}'
    return png_bytes(contact_sheet(rows, space, title))


def _rows(out: Path, names: list[str], space: LabelSpace) -> Iterator[Row]:
    thermal = MODALITIES['thermal']
    paths = {path.stem: path for path in (out / 'images').iterdir()}
    for name in names:
        image = thermal.read(paths[name])
        labels = read_labels(out / 'labels' / f'{name}.png', len(space))
        overlay = cv2.addWeighted(thermal.show(image), 0.5, space.palette()[labels], 0.5, 0)
        yield Row(name, {'thermal': image}, labels, overlay)
