"""What `sartm data check` finds in the pixels of each frame, and in frames compared with others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.file_faults import FileFault, FileFaults
from sartm_model.data.folder import PairedFiles
from sartm_model.data.validation_report import Report, SplitSummary
from sartm_model.labels import IGNORE_ID
from sartm_model.modalities import MODALITIES
from sartm_model.utils.image_io import palette_colors


class FrameFindings(NamedTuple):
    """What was found in one frame.

    Attributes:
        frame: its name.
        summary: its contents.
        digests: modality -> digest of the pixels of an image that is not constant.
        palette: id that occurs in the labels -> its colour in the palette of their file; empty if
            the values in the file are not class ids, or it has no palette.
        labels: the file of the labels.
    """

    frame: str
    summary: SplitSummary
    faults: list[FileFault]
    warnings: list[str]
    digests: dict[str, bytes]
    palette: dict[int, tuple[int, int, int]]
    labels: Path | None


def check_frames(frames: PairDataset) -> Iterator[FrameFindings]:
    """Yield what is found in each frame, in their order; each core reads frames."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(partial(_check_frame, frames), range(len(frames)))


def _check_frame(frames: PairDataset, index: int) -> FrameFindings:
    """Read a frame and look at its pixels."""
    faults = FileFaults()
    palette: dict[int, tuple[int, int, int]] = {}
    labels_file = None
    if isinstance(frames, PairedFiles):
        frame, faults = frames.inspect(index)
        labels_file = frames.files[index].labels
        if frames.label_map is None and frame.labels is not None and labels_file is not None:
            colors = palette_colors(labels_file)
            ids = np.unique(frame.labels).tolist() if colors else []
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
        if image.min() == image.max():
            warnings.append(f'{MODALITIES[name].title} is constant ({image.min()})')
        else:
            digests[name] = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    return FrameFindings(frame.name, summary, faults, warnings, digests, palette, labels_file)


def _same_pixels(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images are equal; one of one channel is compared with each channel of another."""
    one, other = np.atleast_3d(one), np.atleast_3d(other)
    if one.shape[:2] != other.shape[:2] or len({1, one.shape[2], other.shape[2]}) > 2:
        return False
    return bool((one == other).all())


def _is_part(split: str, whole: str) -> bool:
    """Return whether a split has the name of the whole or of a part: `val_night` of `val`."""
    return f'{split}_'.startswith(f'{whole}_')


class FrameComparison:
    """Compares each frame of a data set with the frames before it, and warns in `report`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._images: dict[tuple[str, bytes], tuple[str, str]] = {}  # image -> split, frame
        self._colors: dict[int, tuple[tuple[int, int, int], Path]] = {}  # id -> colour, its file

    def compare(self, found: FrameFindings, split: str) -> None:
        """Warn of an image that an earlier frame has, too, and of labels with another palette."""
        for name, digest in found.digests.items():
            other_split, other = self._images.setdefault((name, digest), (split, found.frame))
            apart = not _is_part(split, other_split) and not _is_part(other_split, split)
            # MFNet's list of the night frames of a split names frames that the split has.
            if other != found.frame or (apart and self._report.dataset != 'mfnet'):
                leak = ': leakage' if apart else ''
                self._report.warn(
                    f'{split}/{found.frame}',
                    f'{MODALITIES[name].title} is the same image as in {other_split}/{other}{leak}',
                )
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
