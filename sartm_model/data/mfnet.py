"""MFNet (Ha et al., IROS 2017): 1569 RGB-thermal frames of 480x640 by day and by night."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sartm_model.data.folder import FrameFiles, PairedFiles
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_model.utils.text import format_names


class MFNet(PairedFiles):
    """The frames that `<root>/<split>.txt` names, a stem a line.

    Two layouts are read: the official one, `images/<stem>.png` RGBA with thermal in alpha, and
    `rgb/ thermal/` with a file each; both with `labels/<stem>.png`. A stem ends in D for day or N
    for night. Any list is a split: beside `train val test` also the day and night lists of the
    official release, such as `test_day` and `test_night`.

    Raises:
        SartmError: no such split; a line that is no stem, or one twice; a file is missing.
    """

    def __init__(self, root: Path, split: str) -> None:
        files = frame_files(image_folders(root), read_split(root, split))
        needed = [path for f in files.values() for path in (f.rgb, f.thermal, f.labels) if path]
        missing = [path for path in dict.fromkeys(needed) if not path.is_file()]
        if missing:
            raise SartmError(f'{split}.txt of {root} names frames without {format_names(missing)}')
        super().__init__(files, MFNET, aligned=True)


def image_folders(root: Path) -> tuple[Path, Path, Path]:
    """The folders of RGB, thermal and labels; the first two are one where thermal is in alpha."""
    if (root / 'images').is_dir():
        return root / 'images', root / 'images', root / 'labels'
    if (root / 'rgb').is_dir():
        return root / 'rgb', root / 'thermal', root / 'labels'
    raise SartmError(f'{root} is not MFNet: it has neither images/ (RGBA) nor rgb/ and thermal/')


def frame_files(folders: Sequence[Path], stems: Iterable[str]) -> dict[str, FrameFiles]:
    """Where the frames' files must be, whether they are there or not."""
    return {stem: FrameFiles(*(folder / f'{stem}.png' for folder in folders)) for stem in stems}


def read_split(root: Path, split: str) -> list[str]:
    """The stems in a split's list, in its order. Raises SartmError where it is no such list."""
    path = root / f'{split}.txt'
    try:
        lines = path.read_text(encoding='utf-8').split()
    except FileNotFoundError:
        there = sorted(p.stem for p in root.glob('*.txt'))
        raise SartmError(
            f'{path} does not exist; the splits here are: {", ".join(there) or "none"}'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SartmError(f'{path} cannot be read as a list of stems: {error}') from error
    stems = [line.removesuffix('.png') for line in lines]
    wrong = [stem for stem in stems if Path(stem).name != stem]
    if wrong or not stems:
        what = f'has {format_names(wrong)}' if wrong else 'is empty'
        raise SartmError(f'{path} {what}; expected a stem such as 00001D a line')
    if len(set(stems)) != len(stems):
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        raise SartmError(
            f'{path} names {format_names(twice)} more than once; expected each frame once'
        )
    return stems
