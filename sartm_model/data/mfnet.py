"""MFNet (Ha et al., IROS 2017): 1569 RGB-thermal frames of 480x640 by day and by night."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sartm_model.data.folder import FrameFiles, PairedFiles
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.utils.text import format_names


class MFNet(PairedFiles):
    """The frames that `<root>/<split>.txt` lists, one stem per line.

    Two layouts are read: the official one, `images/<stem>.png` RGBA with thermal in alpha, and
    `rgb/<stem>.png` with `thermal/<stem>.png`; both with `labels/<stem>.png`. A stem ends in D for
    day or N for night. Any list is a split: also the day and night lists of the official release,
    such as `test_day` and `test_night`.

    Raises:
        SartmError: the split does not exist; a line is not a stem or occurs twice; a file is
            missing.
    """

    classes = MFNET

    def __init__(self, root: Path, split: str) -> None:
        files = frame_files(image_folders(root), read_split(root, split))
        needed = [path for f in files.values() for path in (f.rgb, f.thermal, f.labels) if path]
        missing = [path for path in dict.fromkeys(needed) if not path.is_file()]
        if missing:
            raise SartmError(f'{split}.txt of {root} names frames without {format_names(missing)}')
        super().__init__(files, self.classes, aligned=True)


def image_folders(root: Path) -> tuple[Path, Path, Path]:
    """Return the folders of RGB, thermal and labels; the first two are equal for RGBA files."""
    if (root / 'images').is_dir():
        return root / 'images', root / 'images', root / 'labels'
    if (root / 'rgb').is_dir():
        return root / 'rgb', root / 'thermal', root / 'labels'
    raise SartmError(f'{root} is not MFNet: it has neither images/ (RGBA) nor rgb/ and thermal/')


def frame_files(folders: Sequence[Path], stems: Iterable[str]) -> dict[str, FrameFiles]:
    """Return where the files of each frame must be, whether they exist or not."""
    return {stem: FrameFiles(*(folder / f'{stem}.png' for folder in folders)) for stem in stems}


def read_split(root: Path, split: str) -> list[str]:
    """Read the stems in `<root>/<split>.txt`, one per line, which may contain spaces.

    A byte order mark, blanks around a stem, empty lines and the suffix '.png' are ignored.

    Raises:
        SartmError: the list is missing or empty, is no UTF-8 text, or names a path or a stem twice.
    """
    path = root / f'{split}.txt'
    try:
        lines = path.read_text(encoding='utf-8-sig').split('\n')
    except FileNotFoundError:
        there = sorted(p.stem for p in root.glob('*.txt'))
        raise SartmError(
            f'{path} does not exist; the splits here are: {", ".join(there) or "none"}'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SartmError(f'{path} cannot be read as a list of stems: {error}') from error
    stems = [line.strip().removesuffix('.png') for line in lines if line.strip()]
    wrong = [stem for stem in stems if Path(stem).name != stem]
    if wrong or not stems:
        what = f'has {format_names(wrong)}' if wrong else 'is empty'
        raise SartmError(f'{path} {what}; expected one stem per line, such as 00001D')
    if len(set(stems)) != len(stems):
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        raise SartmError(
            f'{path} names {format_names(twice)} more than once; expected each frame once'
        )
    return stems
