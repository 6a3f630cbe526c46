"""Data sets whose images are files: the base of every data set on disk, and plain folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.file_faults import FileFaults
from sartm_model.data.frame import Frame
from sartm_model.data.label_map import LabelMap
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.utils.image_io import SUFFIXES, exif_orientation, read_labels, read_rgba
from sartm_model.utils.text import format_names

ALIGN_ADVICE = (
    'the images of a frame must have the same size: align them (docs/cameras.md), or, if they show '
    'the same view, declare "resize: true" in the YAML file of a data set folder'
)
LABELS_ADVICE = 'save the labels in the size of that image'


@dataclass(frozen=True)
class FrameFiles:
    """The files of one frame.

    Attributes:
        images: modality -> its file. Two modalities have the same file if it is RGBA and holds the
            first in its colours and the second in alpha.
        labels: the file of the labels; None if there is none.
    """

    images: dict[str, Path]
    labels: Path | None = None

    @classmethod
    def of_parts(cls, parts: Mapping[str, Path | None]) -> FrameFiles:
        """Make it of the file of each part: of each modality in `MODALITIES`, and of 'labels'.

        A part without a file is left out or None.
        """
        images = {name: path for name in MODALITIES if (path := parts.get(name)) is not None}
        return cls(images, parts.get('labels'))

    def select(self, modalities: Collection[str]) -> FrameFiles:
        """Return the files without the images of other modalities."""
        chosen = {name: path for name, path in self.images.items() if name in modalities}
        return FrameFiles(chosen, self.labels)

    def paths(self) -> list[Path]:
        """Return every file once."""
        paths = [*self.images.values(), *([] if self.labels is None else [self.labels])]
        return list(dict.fromkeys(paths))


class FileFrames(FrameDataset):
    """Frames that are read from files when they are indexed.

    Args:
        files: the files of each frame, by the frame's name.
        label_space: the classes that the ids in the labels stand for.
        aligned: whether the images of a frame must have the same size. They need not for images
            straight from two cameras: the predictor resizes the second one. Labels must always have
            the size of the first image.
        label_map: converts the values in the label images; None if they are class ids.
        condition: tells the condition of a frame from its name; None if no frame has one.
        resize: whether the other images are resized to the first one.
    """

    def __init__(
        self,
        files: Mapping[str, FrameFiles],
        label_space: LabelSpace,
        *,
        aligned: bool,
        label_map: LabelMap | None = None,
        condition: Callable[[str], str | None] | None = None,
        resize: bool = False,
    ) -> None:
        self.label_space = label_space
        self.label_map = label_map
        self.names = list(files)
        self.files = [files[name] for name in self.names]
        self._aligned = aligned
        self._condition = condition
        self.resize = resize

    def __getitem__(self, index: int) -> Frame:
        frame, faults = self.inspect(index)
        if faults:
            raise faults[0].error
        return frame

    def with_modalities(self, modalities: Collection[str]) -> FileFrames:
        """Return the data set that reads the images of these modalities alone, where it can.

        A frame's first image, whose size the others may get, is read in any case if they do, and
        so is a file that two modalities share.
        """
        if any(len(set(files.images.values())) < len(files.images) for files in self.files):
            return self
        chosen = copy(self)
        chosen.files = []
        for files in self.files:
            first = [next(iter(files.images))] if self.resize else []
            chosen.files.append(files.select({*modalities, *first}))
        return chosen

    def inspect(self, index: int) -> tuple[Frame, FileFaults]:
        """Return a frame with all of its files that can be read, and all its faults."""
        name, files = self.names[index], self.files[index]
        faults = FileFaults()
        images: dict[str, np.ndarray] = {}
        for path in dict.fromkeys(files.images.values()):
            with faults.noted_for(path):
                images |= _read_images(path, [m for m in files.images if files.images[m] == path])
        images = {modality: images[modality] for modality in files.images if modality in images}
        labels = None
        if files.labels is not None:
            with faults.noted_for(files.labels):
                labels = self._read_labels(files.labels)
        if images:
            first, *others = images
            reference = images[first], files.images[first]
            for other in others:
                image, path = images[other], files.images[other]
                with faults.noted_for(path):
                    if self.resize:
                        _check_turned(image, path, *reference)
                    elif self._aligned:
                        _check_size(image, path, *reference)
                height, width = images[first].shape[:2]
                if self.resize and image.shape[:2] != (height, width):
                    images[other] = MODALITIES[other].resize(image, height, width)
            if labels is not None and files.labels is not None:
                with faults.noted_for(files.labels):
                    _check_size(labels, files.labels, *reference, advice=LABELS_ADVICE)
        condition = None if self._condition is None else self._condition(name)
        return Frame(name, images, labels, condition), faults

    def _read_labels(self, path: Path) -> np.ndarray:
        if self.label_map is None:
            return read_labels(path, len(self.label_space))
        return self.label_map.read(path)


class FolderFrames(FileFrames):
    """The images of each modality, and labels, in one folder each, matched by stem.

    Each may be a single file instead. Hidden files and files with another suffix are skipped.
    The frames are sorted by name.

    Args:
        images: modality -> folder or file; None for one that is not given.
        labels: folder or file of the labels; None for none.
        label_space, aligned: as for `FileFrames`.

    Raises:
        SartmError: no image is given; a path does not exist; a folder has no images or two with the
            same stem; a stem is in one folder but not in another; files are mixed with folders.
    """

    def __init__(
        self,
        images: Mapping[str, Path | None],
        labels: Path | None = None,
        label_space: LabelSpace = MFNET,
        *,
        aligned: bool = False,
    ) -> None:
        files = match_by_stem({**images, 'labels': labels})
        super().__init__(files, label_space, aligned=aligned)


def match_by_stem(parts: Mapping[str, Path | None]) -> dict[str, FrameFiles]:
    """Return the files of each frame by its name, see `FolderFrames`.

    Args:
        parts: modality or 'labels' -> folder or file; None for one that is not given.
    """
    given = {part: Path(path) for part, path in parts.items() if path is not None}
    if not given.keys() - {'labels'}:
        modalities = (part for part in parts if part != 'labels')
        raise SartmError(f'no images are given; give one or more of {", ".join(modalities)}')
    for path in given.values():
        if not path.exists():
            raise SartmError(f'{path} does not exist; expected an image or a folder of images')
    if len({path.is_dir() for path in given.values()}) > 1:
        raise SartmError(
            f'{" and ".join(map(str, given.values()))} mix files with folders; give either '
            'one file each or one folder each'
        )
    first = next(iter(given.values()))
    if first.is_dir():
        found = {part: images_in(path, part) for part, path in given.items()}
        _check_paired({given[part]: stems.keys() for part, stems in found.items()})
        names = sorted(found[next(iter(found))])
    else:  # a single frame, whose files need not have the same stem
        names = [first.stem]
        found = {part: {first.stem: path} for part, path in given.items()}
    return {
        name: FrameFiles.of_parts({part: paths[name] for part, paths in found.items()})
        for name in names
    }


def _read_images(path: Path, modalities: list[str]) -> dict[str, np.ndarray]:
    """Read the image of a modality, or of two that an RGBA file holds."""
    if len(modalities) == 1:
        return {modalities[0]: MODALITIES[modalities[0]].read(path)}
    if len(modalities) > 2:
        raise SartmError(
            f'{path} is given for {" and ".join(modalities)}; expected a file for each, or an RGBA '
            'file for two'
        )
    return dict(zip(modalities, read_rgba(path, *modalities), strict=True))


def suffixes_of(part: str) -> tuple[str, ...]:
    """Return the suffixes, in lower case, of the files of a modality or of labels."""
    return MODALITIES[part].suffixes if part in MODALITIES else SUFFIXES


def images_in(folder: Path, part: str = 'labels') -> dict[str, Path]:
    """Return the files of a folder with a suffix of the part, by stem, sorted.

    Raises:
        SartmError: there are none, or two have the same stem.
    """
    suffixes = suffixes_of(part)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith('.'):
            continue
        if path.stem in found:
            raise SartmError(
                f'{folder} has both {found[path.stem].name} and {path.name}; a stem names one frame'
            )
        found[path.stem] = path
    if not found:
        raise SartmError(f'{folder} has no images; expected files named {", ".join(suffixes)}')
    return found


def _check_paired(stems: Mapping[Path, Set[str]]) -> None:
    every = set().union(*stems.values())
    for folder, found in stems.items():
        if missing := sorted(every - found):
            raise SartmError(
                f'{folder} has no image for {format_names(missing)}, which another folder has; '
                'each frame needs files of one stem in all folders'
            )


def _check_size(
    image: np.ndarray,
    path: Path,
    other: np.ndarray,
    other_path: Path,
    advice: str = ALIGN_ADVICE,
) -> None:
    """Raise SartmError, with advice, unless two images have the same height and width."""
    if image.shape[:2] == other.shape[:2]:
        return
    (height, width), (other_height, other_width) = image.shape[:2], other.shape[:2]
    if (height, width) == (other_width, other_height):
        _check_turned(image, path, other, other_path)
    raise SartmError(
        f'{path} is {width}x{height}, but {other_path} is {other_width}x{other_height}; {advice}'
    )


def _check_turned(image: np.ndarray, path: Path, other: np.ndarray, other_path: Path) -> None:
    """Raise SartmError if one image is upright and the other lies, and EXIF is a reason."""
    (height, width), (other_height, other_width) = image.shape[:2], other.shape[:2]
    if (height - width) * (other_height - other_width) >= 0:
        return
    turned = [p for p in (path, other_path) if exif_orientation(p) >= 5]
    if len(turned) == 1:
        raise SartmError(
            f'{path} is {width}x{height}, but {other_path} is {other_width}x{other_height}; '
            f'{turned[0].name} was turned by 90 degrees as its EXIF orientation says, and the '
            'other was not: turn the other image too, or remove the orientation'
        )
