"""`sartm data check`: find every fault of a data set, file by file, and summarise its contents.

A fault stops training or evaluation: an image that is missing, unreadable or of another size, an
unknown class id, a night frame in a list of day frames. A warning marks what would be trained on
without an error: a constant thermal image, one image in two splits, a mask of 0 and 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sartm_model.data.base import FrameDataset
from sartm_model.data.declaration import UNKNOWN_CLASSES, Declaration, read_declaration
from sartm_model.data.declared import find_files, open_files, split_files
from sartm_model.data.file_frames import FileFrames, FrameFiles, images_in
from sartm_model.data.frame_check import FrameComparison, check_frames
from sartm_model.data.mfnet import condition_of, image_folders, read_split
from sartm_model.data.published import PublishedDataset, split_folder
from sartm_model.data.registry import (
    ON_DISK,
    declaration_path,
    open_dataset,
    open_root,
    published,
)
from sartm_model.data.validation_report import Report, SplitSummary
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID
from sartm_model.utils.text import format_names

LISTS = ('train', 'val', 'test')
"""MFNet's lists start with one of these; another list is only checked if it is asked for."""


def check(dataset: str, root: Path | None, split: str | None = None) -> Report:
    """Read every frame of one split, or of all splits, and report all that is wrong.

    Args:
        dataset: one of `registry.NAMES`.
        root: its folder; for folder the YAML file that declares it; None for synthetic.
        split: one split; None for all. All of mfnet's lists are those that start with train, val
            or test.

    Raises:
        SartmError: the root is not such a data set, or it has no such split.
    """
    splits: Iterable[tuple[str, FrameDataset]]
    if dataset in ON_DISK:
        kind = published(dataset)
        report = Report(dataset, kind.classes)
        open_splits = _mfnet_lists
        if kind.splits:
            open_splits = _listed_splits
        elif kind.folders:
            open_splits = _split_folders
        splits = open_splits(kind, open_root(dataset, root), split, report)
    elif dataset == 'folder':
        declaration, faults = read_declaration(declaration_path(root))
        report = Report(dataset, declaration.label_space if declaration else UNKNOWN_CLASSES)
        report.add_faults(faults)
        splits = [] if declaration is None else _declared_splits(declaration, split, report)
    else:
        from sartm_model.data.synthetic import SPLITS, SyntheticScenes

        report = Report(dataset, SyntheticScenes.label_space)
        splits = [
            (name, open_dataset(dataset, None, name)) for name in ([split] if split else SPLITS)
        ]
    comparison = FrameComparison(report)
    for name, frames in splits:
        summary = report.splits[name] = SplitSummary(len(frames))
        num_colored = num_exchanged = 0
        for found in tqdm(check_frames(frames), name, len(frames), unit='frame', disable=None):
            summary.merge(found.summary)
            report.add_faults(found.faults)
            for what in found.warnings:
                report.warn(f'{name}/{found.frame}', what)
            comparison.compare(found, name)
            num_colored += found.has_colored_thermal
            num_exchanged += found.looks_exchanged
        if 0 < num_exchanged == len(frames):
            report.warn(
                name,
                'all RGB images are grey, and all files of thermal images have colours: are they '
                'exchanged?',
            )
        elif num_colored:
            report.warn(
                name,
                f'the files of {num_colored} thermal images have colours, of which the brightness '
                'is read: in false colours the hottest may be darker than what is colder; save '
                'thermal images as grey, or with the counts of the sensor',
            )
        _warn_of_classes(name, summary, report)
        if set(np.flatnonzero(summary.pixels)) == {0, IGNORE_ID}:
            report.warn(
                name,
                f'all labels are 0 or {IGNORE_ID}, which means "not labelled": only class 0 '
                f'({report.label_space.classes[0]}) can be learned. If these are masks of two '
                f'classes, write 1 in place of {IGNORE_ID}, or declare it in the label_map of a '
                'folder data set',
            )
    comparison.warn_of_leakage()
    return report


def _warn_of_classes(split: str, summary: SplitSummary, report: Report) -> None:
    """Warn of classes that cannot be learned from `train`, and of one that looks like background.

    The latter only of a declared data set, whose background the user chooses.
    """
    space = report.label_space
    pixels = summary.pixels[: len(space)]
    if not pixels.any():
        return
    absent = [name for name, count in zip(space.classes, pixels, strict=True) if not count]
    if split == 'train' and absent:
        report.warn(split, f'has no pixel of {format_names(absent)}, which cannot be learned')
    largest = int(pixels.argmax())
    share = pixels[largest] / pixels.sum()
    if report.dataset == 'folder' and space.background_id is None and share > 0.5:
        report.warn(
            split,
            f'{100 * share:.0f} % of the labelled pixels are {space.classes[largest]}, and '
            'background_id is null: training crops around it and pastes it over other frames as '
            f'if it were an object; if it is none, set background_id: {largest}',
        )


def _mfnet_lists(
    kind: PublishedDataset, root: Path, split: str | None, report: Report
) -> Iterator[tuple[str, FrameDataset]]:
    """Yield the frames of each list, whether their files exist or not."""
    folders = image_folders(root)
    lists = sorted(p.stem for p in root.glob('*.txt') if p.stem.startswith(LISTS))
    if split is not None and split not in lists:
        read_split(root, split)  # raises an error that names the lists there are
    if split is None and not lists:
        raise SartmError(f'{root} has no list train*.txt, val*.txt or test*.txt; name the --split')
    listed_in: dict[str, str] = {}
    for name in dict.fromkeys([*lists, *([split] if split else [])]):
        is_asked_for = split in (None, name)
        try:
            stems = read_split(root, name)
        except SartmError as error:
            if is_asked_for:
                report.fault(root / f'{name}.txt', error)
            continue
        part, _, condition = name.partition('_')
        for stem in stems:
            other = listed_in.setdefault(stem, name)
            if {part, other.partition('_')[0]} <= set(LISTS) and not other.startswith(part):
                report.warn(root / f'{name}.txt', f'names {stem}, which {other}.txt has: leakage')
            actual = condition_of(stem)
            if is_asked_for and condition in ('day', 'night') and actual not in (condition, None):
                report.fault(root / f'{name}.txt', f'names {stem}, a {actual} frame')
        if is_asked_for:
            yield name, kind.open_split(root, name, check=False)
    images = _images(folders.values(), report)
    _note_unpaired(images, report)
    report.unlisted += [
        str(path) for f in images.values() for stem, path in f.items() if stem not in listed_in
    ]


def _split_folders(
    kind: PublishedDataset, root: Path, split: str | None, report: Report
) -> Iterator[tuple[str, FrameDataset]]:
    """Yield the frames of each split's folder; a missing file is noted as a fault and left out."""
    names = kind.folders.values()
    there = sorted(p.name for p in root.iterdir() if any((p / part).is_dir() for part in names))
    if split is None and not there:
        raise SartmError(f'{root} has no folder with {", ".join(names)} in it')
    for name in [split] if split else there:
        base = split_folder(kind.title, root, name)
        folders = {part: base / folder for part, folder in kind.folders.items()}
        images = _images(folders.values(), report)
        for folder, stem in _note_unpaired(images, report):
            report.fault(folder / stem, 'is missing; another folder has an image of this stem')
        stems = sorted(set().union(*images.values()))
        files = {
            stem: FrameFiles.of_parts(
                {part: images.get(folder, {}).get(stem) for part, folder in folders.items()}
            )
            for stem in stems
        }
        yield name, FileFrames(files, report.label_space, aligned=True)


def _listed_splits(
    kind: PublishedDataset, root: Path, split: str | None, report: Report
) -> Iterator[tuple[str, FrameDataset]]:
    """Yield the frames of each split, whether their files exist or not."""
    listed: set[Path] = set()
    for name in [split] if split else kind.splits:
        frames = kind.open_split(root, name, check=False)
        listed.update(path for files in frames.files for path in files.paths())
        yield name, frames
    if split is None:
        report.unlisted += [str(path) for path in kind.first_images(root) if path not in listed]


def _declared_splits(
    declaration: Declaration, split: str | None, report: Report
) -> Iterator[tuple[str, FrameDataset]]:
    """Yield the frames of each split of a YAML file; a missing file is noted as a fault."""
    listed: set[Path] = set()
    unpaired = set()
    for name in [split] if split else declaration.splits:
        files, faults = split_files(declaration, name)
        report.add_faults(faults)
        for stem, of_frame in files.items():
            listed.update(of_frame.paths())
            if len(of_frame.images) + (of_frame.labels is not None) < len(declaration.patterns):
                unpaired.add(stem)
        yield name, open_files(declaration, files)
    if split is None:
        unpaired |= _note_unlisted(declaration, listed, report)
    report.unpaired += sorted(unpaired)


def _note_unlisted(declaration: Declaration, listed: set[Path], report: Report) -> set[str]:
    """Note the files that fit a pattern of the YAML file and are in none of its splits.

    Returns:
        The stems that have such files of some parts only.
    """
    base = declaration.path.parent
    found = {
        part: find_files(base, pattern, part)
        for part, pattern in declaration.patterns.items()
        if (base / pattern).parent.is_dir()
    }
    incomplete = set()
    for stem in sorted(set().union(*found.values())):
        paths = [path for by_stem in found.values() for path in by_stem.get(stem, [])]
        if not listed.isdisjoint(paths):
            continue
        report.unlisted += [str(path) for path in paths]
        lacking = [part for part, by_stem in found.items() if stem not in by_stem]
        if lacking:
            incomplete.add(stem)
            report.warn(
                paths[0],
                f'is in no split, and the stem {stem} has no {" and no ".join(lacking)} file: add '
                'it, or remove this one',
            )
    return incomplete


def _images(folders: Iterable[Path], report: Report) -> dict[Path, dict[str, Path]]:
    """Return the images of each folder by stem; an unusable folder is a fault and left out."""
    files = {}
    for folder in dict.fromkeys(folders):
        try:
            files[folder] = images_in(folder)
        except FileNotFoundError:
            report.fault(folder, 'does not exist; expected a folder of images')
        except SartmError as error:
            report.fault(folder, error)
    return files


def _note_unpaired(images: dict[Path, dict[str, Path]], report: Report) -> list[tuple[Path, str]]:
    """Return each folder that lacks a stem which another folder has, with that stem."""
    every = sorted(set().union(*images.values()))
    lacking = [
        (folder, stem) for folder, has in images.items() for stem in every if stem not in has
    ]
    report.unpaired += sorted({stem for _, stem in lacking})
    return lacking
