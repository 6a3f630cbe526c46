"""What `sartm data check` finds in the pixels of each frame, and in frames compared with others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.file_faults import FileFault, FileFaults
from sartm_model.data.file_frames import FileFrames
from sartm_model.data.frame import Frame
from sartm_model.data.validation_report import Report, SplitSummary
from sartm_model.labels import IGNORE_ID
from sartm_model.modalities import MODALITIES
from sartm_model.utils.image_io import has_colors, palette_colors, read_raw_ids
from sartm_model.utils.text import format_names


class FrameFindings(NamedTuple):
    """What was found in one frame.

    Attributes:
        frame: its name.
        summary: its contents.
        digests: modality -> digest of the pixels of an image that is not constant.
        palette: value that occurs in the file of the labels -> its colour in the palette of that
            file; empty if it has none, or the labels are told by colour.
        labels: the file of the labels.
        has_colored_thermal: whether the file of the thermal image has colours.
        looks_exchanged: whether, besides, the RGB image is grey.
    """

    frame: str
    summary: SplitSummary
    faults: list[FileFault]
    warnings: list[str]
    digests: dict[str, bytes]
    palette: dict[int, tuple[int, int, int]]
    labels: Path | None
    has_colored_thermal: bool
    looks_exchanged: bool


def check_frames(frames: FrameDataset) -> Iterator[FrameFindings]:
    """Yield what is found in each frame, in their order; each core reads frames."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(partial(_check_frame, frames), range(len(frames)))


def _check_frame(frames: FrameDataset, index: int) -> FrameFindings:
    """Read a frame and look at its pixels."""
    faults = FileFaults()
    palette: dict[int, tuple[int, int, int]] = {}
    labels_file = None
    has_colored_thermal = False
    if isinstance(frames, FileFrames):
        frame, faults = frames.inspect(index)
        labels_file = frames.files[index].labels
        has_colored_thermal = _has_colored_thermal(frame, frames.files[index].images)
        map_ = frames.label_map
        are_ids = map_ is None or not (map_.of_colors or map_.first_channel)
        if are_ids and frame.labels is not None and labels_file is not None:
            colors = palette_colors(labels_file)
            ids = np.unique(read_raw_ids(labels_file)).tolist() if colors else []
            palette = {id_: colors[id_] for id_ in ids if id_ < len(colors)}
    else:
        frame = frames[index]
    summary = SplitSummary(1, unusable=int(bool(faults)))
    summary.add(frame)
    warnings = []
    for one, other in combinations(frame.images, 2):
        if _same_pixels(frame.images[one], frame.images[other]):
            titles = f'{MODALITIES[one].title} and {MODALITIES[other].title}'
            warnings.append(f'{titles} are the same image')
    if frame.labels is not None and (frame.labels == IGNORE_ID).all():
        warnings.append('no pixel is labelled')
    digests = {}
    for name, image in frame.images.items():
        modality = MODALITIES[name]
        if image.min() < image.max():
            digests[name] = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        elif not modality.may_be_uniform:
            warnings.append(f'{modality.title} is constant ({image.min()})')
    rgb = frame.images.get('rgb')
    is_grey = rgb is not None and bool((rgb == rgb[..., :1]).all())
    return FrameFindings(
        frame.name,
        summary,
        faults,
        warnings,
        digests,
        palette,
        labels_file,
        has_colored_thermal,
        has_colored_thermal and is_grey,
    )


def _has_colored_thermal(frame: Frame, files: Mapping[str, Path]) -> bool:
    """Whether the file of a frame's thermal image, of which the luma is read, has colours.

    Thermal images of more than 8 bits hold counts or temperatures, whatever their file shows.
    """
    thermal = frame.images.get('thermal')
    if thermal is None or thermal.dtype != np.uint8 or files['thermal'] == files.get('rgb'):
        return False
    return has_colors(files['thermal'])


def _same_pixels(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images are equal; one of one channel is compared with each channel of another."""
    one, other = np.atleast_3d(one), np.atleast_3d(other)
    if one.shape[:2] != other.shape[:2] or len({1, one.shape[2], other.shape[2]}) > 2:
        return False
    return bool((one == other).all())


def _is_part(split: str, whole: str) -> bool:
    """Return whether a split has the name of the whole or of a part: `val_night` of `val`."""
    return f'{split}_'.startswith(f'{whole}_')


Image = tuple[str, bytes]
"""Modality and digest of an image."""


class FrameComparison:
    """Compares each frame of a data set with the frames before it, and warns in `report`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._images: dict[Image, dict[str, list[str]]] = {}  # image -> split -> frames
        self._colors: dict[int, tuple[tuple[int, int, int], Path]] = {}  # id -> colour, its file

    def compare(self, found: FrameFindings, split: str) -> None:
        """Warn of an image that another frame of the split has, and of another palette."""
        for name, digest in found.digests.items():
            frames = self._images.setdefault((name, digest), {})
            same = (
                f'{other_split}/{frame}'
                for other_split, of_split in frames.items()
                if _is_part(split, other_split) or _is_part(other_split, split)
                for frame in of_split
                if frame != found.frame
            )
            for first in islice(same, 1):
                self._report.warn(
                    f'{split}/{found.frame}',
                    f'{MODALITIES[name].title} is the same image as in {first}',
                )
            frames.setdefault(split, []).append(found.frame)
        for id_, color in found.palette.items():
            assert found.labels is not None  # the palette is that of this file
            first_color, first_file = self._colors.setdefault(id_, (color, found.labels))
            if color != first_color:
                self._report.warn(
                    found.labels,
                    f'its palette has the colour {color} for the id {id_}, and that of '
                    f'{first_file} has {first_color}; the ids are indices of the palette, so one '
                    'id may stand for two classes: save all label images with the same palette, or '
                    'as grey ids',
                )
                return

    def warn_of_leakage(self) -> None:
        """Warn of each two splits that have images in common, after all frames are compared.

        A split that consists of others, such as trainval, is meant to have their images. A part of
        a split, such as val_night, is compared as a part of it.
        """
        images: dict[str, set[Image]] = {split: set() for split in self._report.splits}
        for image, frames in self._images.items():
            for split in frames:
                images[split].add(image)
        wholes = {
            split: own
            for split, own in images.items()
            if not any(
                split != other and _is_part(split, other) and own <= of_other
                for other, of_other in images.items()
            )
        }
        compared = [
            split
            for split, own in wholes.items()
            if own != set().union(*(other for other in wholes.values() if other < own))
        ]
        for one, other in combinations(compared, 2):
            self._compare_splits(one, other, images[one] & images[other])

    def _compare_splits(self, one: str, other: str, common: set[Image]) -> None:
        """Warn in one line of the images that two splits have in common."""
        pairs: dict[str, str] = {}  # frame of `other` -> a frame of `one` with the same image
        titles = set()
        for image in sorted(common):
            first = self._images[image][one][0]
            for frame in self._images[image][other]:
                # Of a frame in two lists of MFNet, the lists are a warning already.
                if frame != first or self._report.dataset != 'mfnet':
                    pairs.setdefault(frame, first)
                    titles.add(MODALITIES[image[0]].title)
        if pairs:
            frame = min(pairs)
            self._report.warn(
                other,
                f'{len(pairs)} of its {self._report.splits[other].frames} frames share an image '
                f'({format_names(sorted(titles))}) with frames of {one}, such as {other}/{frame} '
                f'with {one}/{pairs[frame]}: leakage',
            )
