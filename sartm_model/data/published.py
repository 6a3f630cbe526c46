"""Published data sets: each is a value that says where its files are and what they mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sartm_model.data.file_frames import FileFrames, FrameFiles, match_by_stem
from sartm_model.data.label_map import LabelMap
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.utils.text import format_names

VAL_SHARE = 0.1
VAL_SEED = 0


@dataclass(frozen=True)
class PublishedDataset:
    """A data set as its makers publish it.

    Attributes:
        title: its name in messages.
        classes: the label space.
        find: (root, split) -> the files of each frame by its name. They need not exist; SartmError
            is raised where it cannot be told which they are.
        splits: the splits, which have no frame in common; none where the files tell them.
        unions: splits that consist of those, and are not checked by themselves.
        first_images: root -> the first image of each frame that is there, in a split or not.
        folders: modality or 'labels' -> its folder in the folder of a split; see `split_folders`.
        label_map: converts the values in the label images; None if they are class ids.
        condition: tells the condition of a frame from its name; None if no frame has one.
        resize: whether the images get the size of the first one of a frame; otherwise another size
            is a fault.
    """

    title: str
    classes: LabelSpace
    find: Callable[[Path, str], dict[str, FrameFiles]]
    splits: tuple[str, ...] = ()
    unions: tuple[str, ...] = ()
    first_images: Callable[[Path], Iterable[Path]] = lambda root: ()
    folders: Mapping[str, str] = field(default_factory=dict)
    label_map: LabelMap | None = None
    condition: Callable[[str], str | None] | None = None
    resize: bool = False

    def open_split(self, root: Path, split: str, *, check: bool = True) -> FileFrames:
        """Open the frames of a split; `check` tells whether all their files must exist.

        Raises:
            SartmError: there is no such split, its files cannot be told, or one is missing.
        """
        known = self.splits + self.unions
        if known and split not in known:
            raise SartmError(f'{self.title} has no split {split!r}; expected {", ".join(known)}')
        files = self.find(root, split)
        needed = (path for of_frame in files.values() for path in of_frame.paths())
        if check and (missing := [path for path in needed if not path.is_file()]):
            raise SartmError(
                f'{self.title} {split} in {root} has no {format_names(missing)}; sartm data check '
                'lists all faults'
            )
        return FileFrames(
            files,
            self.classes,
            aligned=True,
            label_map=self.label_map,
            condition=self.condition,
            resize=self.resize,
        )


def split_folders(title: str, classes: LabelSpace, **folders: str) -> PublishedDataset:
    """Return a data set with one folder per split: `<root>/<split>/<folder>/<stem>.*`.

    Args:
        title: its name in messages.
        classes: the label space.
        folders: the folder of each modality and of 'labels'.
    """

    def find(root: Path, split: str) -> dict[str, FrameFiles]:
        base = split_folder(title, root, split)
        return match_by_stem({part: base / folder for part, folder in folders.items()})

    return PublishedDataset(title, classes, find, folders=folders)


def folder_in(root: Path, name: str) -> Path:
    """Return `root/name` if there is such a folder, else `root`, which is then that folder."""
    inside = root / name
    return inside if inside.is_dir() else root


def split_folder(title: str, root: Path, split: str) -> Path:
    """Return `root/split`. Raises SartmError, naming the splits there are, if it is missing."""
    if Path(split).name == split and (root / split).is_dir():
        return root / split
    there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    raise SartmError(
        f'{root / split} does not exist; {title} has one folder per split, and the folders '
        f'here are: {", ".join(there) or "none"}'
    )


def part_of_split(names: Iterable[str], split: str) -> list[str]:
    """Return the part of the official training frames that a split has, sorted.

    A tenth of them, always the same ones, is 'val' and the others are 'train'; for another split
    all are returned. The choice depends on the names and `VAL_SEED` alone.
    """
    ordered = sorted(names)
    if split not in ('train', 'val'):
        return ordered
    # Of all that Python draws, `random()` alone is promised to stay the same.
    draw = random.Random(VAL_SEED)
    ranks = {name: draw.random() for name in ordered}
    val = set(sorted(ordered, key=ranks.__getitem__)[: round(VAL_SHARE * len(ordered))])
    return [name for name in ordered if (name in val) == (split == 'val')]


def first_columns(path: Path) -> list[str]:
    """Read the first column of a list, without the suffix of a file, each name once.

    Columns are separated by blanks or tabs. A line with `(` or `~` names the copy of another frame,
    such as `0007 (1)` or `~temp_0007`, and is left out.

    Raises:
        SartmError: the list cannot be read, or names no frame.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SartmError(f'{path} cannot be read as a list of frames: {error}') from error
    names = [line.split()[0] for line in lines if line.strip() and not set('(~') & set(line)]
    if not names:
        raise SartmError(f'{path} names no frame; expected one a line, in the first column')
    return list(dict.fromkeys(Path(name).stem for name in names))


def files_by_stem(folder: Path, pattern: str, ending: str = '') -> dict[str, Path]:
    """Return the files in a folder and in those in it by stem, without the ending of the stem.

    Raises:
        SartmError: the folder does not exist, or two files have the same stem.
    """
    if not folder.is_dir():
        raise SartmError(f'{folder} does not exist; expected a folder of images')
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(pattern)):
        stem = path.stem.removesuffix(ending)
        if stem in found:
            raise SartmError(f'{found[stem]} and {path} have the same name; keep one of them')
        found[stem] = path
    return found
