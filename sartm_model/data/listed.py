"""Published data sets whose splits are lists of names: the base of SODA, DELIVER and others."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from sartm_model.data.folder import FrameFiles, PairedFiles
from sartm_model.data.label_map import LabelMap
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.utils.text import format_names

VAL_SHARE = 0.1
VAL_SEED = 0


class ListedFrames(PairedFiles):
    """The frames of a split, by default each a thermal image with labels.

    Args:
        root: the folder of the data set.
        split: one of `SPLITS`.

    Attributes:
        title: the data set's name in messages.
        classes: the label space.
        raw_ids: converts the values in the label images; None if they are class ids.
        SPLITS: the splits; the first ones have no frame in common and are all that is checked.
        NUM_DISJOINT: number of these.
        RESIZED: whether the images get the size of the first one of a frame; otherwise another
            size is a fault.

    Raises:
        SartmError: there is no such split, its list cannot be read, or a file is missing.
    """

    title: ClassVar[str]
    classes: ClassVar[LabelSpace]
    raw_ids: ClassVar[LabelMap | None] = None
    SPLITS: ClassVar[tuple[str, ...]]
    NUM_DISJOINT: ClassVar[int]
    RESIZED: ClassVar[bool] = False

    def __init__(self, root: Path, split: str) -> None:
        files = self.find(root, split)
        needed = [path for of_frame in files.values() for path in of_frame.paths()]
        if missing := [path for path in needed if not path.is_file()]:
            raise SartmError(
                f'{self.title} {split} in {root} has no {format_names(missing)}; sartm data check '
                'lists all faults'
            )
        self._open(files)

    def _open(self, files: Mapping[str, FrameFiles]) -> None:
        PairedFiles.__init__(
            self,
            files,
            self.classes,
            aligned=True,
            label_map=self.raw_ids,
            condition=self.condition,
            resize=self.RESIZED,
        )

    @classmethod
    def unchecked(cls, files: Mapping[str, FrameFiles]) -> ListedFrames:
        """Return frames whose files may be missing, for `sartm data check`."""
        frames = cls.__new__(cls)
        frames._open(files)
        return frames

    @classmethod
    @abstractmethod
    def find(cls, root: Path, split: str) -> dict[str, FrameFiles]:
        """Return the files of each frame of a split by its name, whether they exist or not."""

    @classmethod
    @abstractmethod
    def images(cls, root: Path) -> list[Path]:
        """Return the first image of all frames, in a split or not."""

    @classmethod
    def condition(cls, name: str) -> str | None:
        """Return the condition of a frame; None, as most names do not tell day from night."""
        return None

    @classmethod
    def check_split(cls, split: str) -> None:
        """Raise SartmError unless the data set has the split."""
        if split not in cls.SPLITS:
            raise SartmError(
                f'{cls.title} has no split {split!r}; expected {", ".join(cls.SPLITS)}'
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
