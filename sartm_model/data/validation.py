"""`sartm data check`: every fault of a data set, file by file, and what is in it.

A fault is what training or measuring would stumble over: an image that is missing, unreadable or of
another size, an unknown class id, a night frame in a day list. A warning is what they would
swallow: a constant thermal image, one image in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sartm_model.data.base import PairDataset
from sartm_model.data.folder import (
    FrameFiles,
    PairedFiles,
    condition_of,
    images_in,
    split_folder,
)
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_root
from sartm_model.data.validation_report import Report, SplitSummary
from sartm_model.errors import SartmError
from sartm_model.labels import FMB, IGNORE_ID, MFNET, PST900

LISTS = ('train', 'val', 'test')
"""MFNet's lists begin with one of these; other lists are checked where they are named."""


def check(dataset: str, root: Path | None, split: str | None = None) -> Report:
    """Read every frame of a split, or of all splits, and report all that is wrong.

    Args:
        dataset: mfnet, pst900, fmb or synthetic.
        root: its folder; None for synthetic.
        split: one split; None for all. Of mfnet's lists, 'all' are those that begin with train,
            val or test.

    Raises:
        SartmError: the root is not such a data set, or it has no such split.
    """
    opened: Iterable[tuple[str, PairDataset]]
    if dataset == 'synthetic':
        from sartm_model.data.synthetic import SPLITS, SyntheticScenes

        report = Report(dataset, SyntheticScenes.label_space)
        opened = [(name, SyntheticScenes(name)) for name in ([split] if split else SPLITS)]
    elif dataset == 'mfnet':
        report = Report(dataset, MFNET)
        opened = _mfnet_lists(open_root(dataset, root), split, report)
    else:
        from sartm_model.data import fmb, pst900

        space, folders = (FMB, fmb.FOLDERS) if dataset == 'fmb' else (PST900, pst900.FOLDERS)
        report = Report(dataset, space)
        opened = _split_folders(open_root(dataset, root), split, folders, report)
    images: dict[bytes, tuple[str, str]] = {}
    for name, frames in opened:
        found = report.splits[name] = SplitSummary(len(frames))
        for index in tqdm(range(len(frames)), desc=name, unit='frame', disable=None):
            if isinstance(frames, PairedFiles):
                frame, faults = frames.inspect(index)
                found.unusable += bool(faults)
                for path, error in faults:
                    report.fault(path, error)
            else:
                frame = frames[index]
            found.add(frame)
            _suspect(frame, name, report, images)
    return report


def _mfnet_lists(
    root: Path, split: str | None, report: Report
) -> Iterator[tuple[str, PairDataset]]:
    """The frames of each list, whether their files exist or not."""
    from sartm_model.data.mfnet import frame_files, image_folders, read_split

    folders = image_folders(root)
    lists = sorted(p.stem for p in root.glob('*.txt') if p.stem.startswith(LISTS))
    if split is not None and split not in lists:
        read_split(root, split)  # says what is there where this is not
    if split is None and not lists:
        raise SartmError(f'{root} has no list train*.txt, val*.txt or test*.txt; name the --split')
    named: dict[str, str] = {}
    for name in dict.fromkeys([*lists, *([split] if split else [])]):
        is_asked = split in (None, name)
        try:
            stems = read_split(root, name)
        except SartmError as error:
            if is_asked:
                report.fault(root / f'{name}.txt', error)
            continue
        part, _, condition = name.partition('_')
        for stem in stems:
            other = named.setdefault(stem, name)
            if {part, other.partition('_')[0]} <= set(LISTS) and not other.startswith(part):
                report.warn(root / f'{name}.txt', f'names {stem}, which {other}.txt has: leakage')
            told = condition_of(stem)
            if is_asked and condition in ('day', 'night') and told not in (condition, None):
                report.fault(root / f'{name}.txt', f'names {stem}, a {told} frame')
        if is_asked:
            yield name, PairedFiles(frame_files(folders, stems), report.label_space, aligned=True)
    files = _images(folders, report)
    _note_unpaired(files, report)
    report.unlisted += [
        str(path) for f in files.values() for stem, path in f.items() if stem not in named
    ]


def _split_folders(
    root: Path, split: str | None, folders: tuple[str, ...], report: Report
) -> Iterator[tuple[str, PairDataset]]:
    """The frames of each folder of a split; a file that is missing is noted and left out."""
    there = sorted(p.name for p in root.iterdir() if any((p / part).is_dir() for part in folders))
    if split is None and not there:
        raise SartmError(f'{root} has no folder with {", ".join(folders)} in it')
    for name in [split] if split else there:
        base = split_folder(root, name, report.dataset)
        files = _images([base / part for part in folders], report)
        for folder, stem in _note_unpaired(files, report):
            report.fault(folder / stem, 'is missing; another folder has an image of this stem')
        stems = sorted(set().union(*files.values()))
        parts = [files.get(base / part, {}) for part in folders]
        paired = {stem: FrameFiles(*(part.get(stem) for part in parts)) for stem in stems}
        yield name, PairedFiles(paired, report.label_space, aligned=True)


def _images(folders: Iterable[Path], report: Report) -> dict[Path, dict[str, Path]]:
    """The images of each folder by stem; a folder that cannot be used is noted and left out."""
    files = {}
    for folder in dict.fromkeys(folders):
        try:
            files[folder] = images_in(folder)
        except FileNotFoundError:
            report.fault(folder, 'does not exist; expected a folder of images')
        except SartmError as error:
            report.fault(folder, error)
    return files


def _note_unpaired(files: dict[Path, dict[str, Path]], report: Report) -> list[tuple[Path, str]]:
    """Each stem that one folder has and another lacks, with the folder that lacks it."""
    every = sorted(set().union(*files.values()))
    lacking = [(folder, stem) for folder, has in files.items() for stem in every if stem not in has]
    report.unpaired += sorted({stem for _, stem in lacking})
    return lacking


def _suspect(
    frame: Frame, split: str, report: Report, images: dict[bytes, tuple[str, str]]
) -> None:
    """Warn of a constant image, of RGB that is thermal, and of pixels seen before."""
    who = f'{split}/{frame.name}'
    rgb, thermal = frame.rgb, frame.thermal
    if (
        rgb is not None
        and thermal is not None
        and all(np.array_equal(rgb[..., channel], thermal) for channel in range(3))
    ):
        report.warn(who, 'RGB and thermal are the same image')
    if frame.labels is not None and (frame.labels == IGNORE_ID).all():
        report.warn(who, 'no pixel is labelled')
    for part, image in (('RGB', rgb), ('thermal', thermal)):
        if image is None:
            continue
        if image.min() == image.max():
            report.warn(who, f'{part} is constant ({image.min()})')
            continue
        digest = hashlib.blake2b(part.encode() + image.tobytes(), digest_size=16).digest()
        other_split, other = images.setdefault(digest, (split, frame.name))
        parts = {split.partition('_')[0], other_split.partition('_')[0]}
        # A list of the night frames of a split names frames that the split has.
        if other != frame.name or (len(parts) > 1 and report.dataset != 'mfnet'):
            leak = ': leakage' if len(parts) > 1 else ''
            report.warn(who, f'{part} is the same image as in {other_split}/{other}{leak}')
