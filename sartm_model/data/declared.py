"""The data set `folder`: own frames and own classes, declared in a YAML file.

    label_space: classes.yaml             # a file, a built-in name, or what such a file contains
    images: {rgb: 'rgb/{stem}.*', thermal: 'thermal/{stem}.*'}
    labels: 'masks/{stem}.png'
    label_map: {7: road, 11: person}      # or ids (the default), or colours; see `label_map`
    splits: {train: train.txt, val: [0007, 0008], test: recorded_in_may}
    condition: {night: 'N$', day: 'D$'}   # optional
    resize: false                         # optional; true: to the size of the first image

The keys of `images` are the names in `MODALITIES`. Paths start from the folder of the YAML file.
`{stem}` is the name of a frame, and `.*` the suffix of any image. Suffixes are found in upper and
lower case. A split is a text file with one stem per line, a list of stems, or a folder. In the
latter case the patterns start from that folder, and all that is in it belongs to the split. The
condition of a frame is the first whose regular expression is found in its stem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartm_model.data.folder import FileFault, FrameFiles, PairedFiles
from sartm_model.data.frame_list import SUFFIXES, check_stems, read_stems
from sartm_model.data.label_map import LabelMap, parse_label_map
from sartm_model.data.label_space_file import open_label_space, parse_label_space, read_yaml
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES

KEYS = ('label_space', 'images', 'labels', 'label_map', 'splits', 'condition', 'resize')
REQUIRED = ('label_space', 'images', 'splits')


@dataclass(frozen=True)
class ConditionPatterns:
    """Tells the condition of a frame from its stem.

    Attributes:
        patterns: condition -> regular expression; the first that is found in the stem counts.
    """

    patterns: dict[str, re.Pattern[str]]

    def __call__(self, stem: str) -> str | None:
        """Return the condition of the frame `stem`, None if no pattern is found in it."""
        found = (name for name, pattern in self.patterns.items() if pattern.search(stem))
        return next(found, None)


@dataclass(frozen=True)
class Declaration:
    """The content of the YAML file of a data set; the attributes are its keys.

    Attributes:
        path: the file.
        patterns: part (a modality, or 'labels') -> pattern of its files.
    """

    path: Path
    label_space: LabelSpace
    patterns: dict[str, str]
    label_map: LabelMap | None
    splits: dict[str, str | list[str]]
    condition: ConditionPatterns
    resize: bool

    def open(self, files: Mapping[str, FrameFiles]) -> PairedFiles:
        """Return the frames of these files."""
        return PairedFiles(
            files,
            self.label_space,
            aligned=True,
            label_map=self.label_map,
            condition=self.condition,
            resize=self.resize,
        )


def open_declared(root: Path, split: str) -> PairedFiles:
    """Open a split of the data set that the YAML file `root` declares.

    Raises:
        SartmError: the file does not declare a data set, there is no such split, or a frame has no
            file or two files of a part.
    """
    declaration = read_declaration(root)
    files, faults = split_files(declaration, split)
    if faults:
        more = f' ({len(faults) - 1} more; sartm data check lists all)' if faults[1:] else ''
        raise SartmError(f'{faults[0].error}{more}')
    return declaration.open(files)


def read_declaration(path: Path) -> Declaration:
    """Read the YAML file of a data set. Raises SartmError if it does not declare one."""
    if path.is_dir():
        raise SartmError(
            f'{path} is a folder; the data set folder needs the YAML file that declares it, which '
            f'sartm data init {path} writes'
        )
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise SartmError(f'{path} declares no data set; expected the keys {", ".join(KEYS)}')
    if 'resize_thermal' in values:  # the name of `resize` before there were other modalities
        values['resize'] = values.pop('resize_thermal')
    for key in values:
        if key not in KEYS:
            raise SartmError(f'{path} has the key {key!r}; expected {", ".join(KEYS)}')
    for key in REQUIRED:
        if not values.get(key):
            raise SartmError(f'{path} lacks {key}; docs/own_data.md has an example')
    space = values['label_space']
    if isinstance(space, str):
        label_space = open_label_space(space, path.parent)
    else:
        label_space = parse_label_space(space, path.stem, f'{path}: label_space')
    resize = values.get('resize', False)
    if not isinstance(resize, bool):
        raise SartmError(f'{path} has resize: {resize!r}; expected true or false')
    return Declaration(
        path,
        label_space,
        _parse_patterns(path, values['images'], values.get('labels')),
        parse_label_map(values.get('label_map'), label_space, str(path)),
        _parse_splits(path, values['splits']),
        _parse_condition(path, values.get('condition') or {}),
        resize,
    )


def split_files(
    declaration: Declaration, split: str
) -> tuple[dict[str, FrameFiles], list[FileFault]]:
    """Return the files of each frame of a split by its stem, and what is wrong with them.

    A part of which a frame has no usable file is left out.

    Raises:
        SartmError: there is no such split, or its list cannot be used.
    """
    base, stems = _find_split(declaration, split)
    faults: list[FileFault] = []
    found: dict[str, dict[str, list[Path]]] = {}
    for part, pattern in declaration.patterns.items():
        try:
            found[part] = find_files(base, pattern)
        except SartmError as error:
            faults.append(FileFault((base / pattern).parent, error))
    if stems is None:
        stems = sorted(set().union(*found.values()))
    files = {}
    for stem in stems:
        one_each: dict[str, Path | None] = {}
        for part, by_stem in found.items():
            paths = by_stem.get(stem, [])
            one_each[part] = paths[0] if len(paths) == 1 else None
            wanted = base / declaration.patterns[part].replace('{stem}', stem)
            if not paths:
                faults.append(FileFault(wanted, _missing(wanted, part, stem)))
            elif len(paths) > 1:
                faults.append(FileFault(wanted, _ambiguous(paths, part, stem)))
        files[stem] = FrameFiles.of_parts(one_each)
    if not files and not faults:
        faults.append(FileFault(base, SartmError(f'{base} has no frame of the split {split}')))
    return files, faults


def find_files(base: Path, pattern: str) -> dict[str, list[Path]]:
    """Return the files that fit a pattern, by their stem; hidden files are skipped.

    Raises:
        SartmError: the folder that the pattern names does not exist.
    """
    folder = (base / pattern).parent
    if not folder.is_dir():
        raise SartmError(f'{folder} does not exist; expected the folder of {pattern}')
    before, after = Path(pattern).name.split('{stem}')
    tail, dot, suffix = after.rpartition('.')
    suffixes = SUFFIXES if suffix == '*' else (dot + suffix.lower(),)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = path.stem
        if path.name.startswith('.') or path.suffix.lower() not in suffixes:
            continue
        if len(stem) > len(before) + len(tail) and stem.startswith(before) and stem.endswith(tail):
            found.setdefault(stem[len(before) : len(stem) - len(tail)], []).append(path)
    return found


def _find_split(declaration: Declaration, split: str) -> tuple[Path, list[str] | None]:
    """Return where the patterns start for a split, and its stems; None for all that are there."""
    path = declaration.path
    if split not in declaration.splits:
        raise SartmError(
            f'{path} has no split {split!r}; its splits are: {", ".join(declaration.splits)}'
        )
    value = declaration.splits[split]
    base = path.parent
    if isinstance(value, list):
        return base, check_stems(value, f'the split {split} of {path}')
    if (base / value).is_dir():
        return base / value, None
    if (base / value).is_file():
        return base, read_stems(base / value)
    raise SartmError(
        f'{base / value}, the split {split} of {path}, does not exist; expected a list of stems or '
        'a folder'
    )


def _missing(wanted: Path, part: str, stem: str) -> SartmError:
    return SartmError(
        f'{wanted} does not exist, the {part} file of the frame {stem}; add it, or take the frame '
        'out of its split'
    )


def _ambiguous(paths: list[Path], part: str, stem: str) -> SartmError:
    names = ' and '.join(path.name for path in paths)
    return SartmError(
        f'{paths[0].parent} has {names}, two {part} files for the frame {stem}; keep one of them'
    )


def _parse_patterns(path: Path, images: Any, labels: Any) -> dict[str, str]:
    """Return the pattern of each part, checked."""
    if not isinstance(images, dict) or not images or not images.keys() <= MODALITIES.keys():
        raise SartmError(
            f'{path} has images: {images!r}; expected a pattern for one or more of '
            f'{", ".join(MODALITIES)}'
        )
    patterns = images if labels is None else {**images, 'labels': labels}
    for part, pattern in patterns.items():
        name = Path(pattern).name if isinstance(pattern, str) else ''
        if name.count('{stem}') != 1 or not Path(name).suffix or str(pattern).count('{stem}') != 1:
            raise SartmError(
                f'{path} has the pattern {pattern!r} for {part}; expected a file name with '
                "{stem} once and a suffix, such as 'rgb/{stem}.png', or '.*' for any image"
            )
    return patterns


def _parse_splits(path: Path, values: Any) -> dict[str, str | list[str]]:
    expected = "expected a mapping such as {train: train.txt, val: ['0007', '0008']}"
    if not isinstance(values, dict):
        raise SartmError(f'{path} has splits: {values!r}; {expected}')
    for name, value in values.items():
        stems = value if isinstance(value, list) else [value]
        if not isinstance(name, str) or not all(isinstance(stem, str) for stem in stems):
            raise SartmError(
                f'{path} has the split {name!r}: {value!r}; {expected}, with numbers in quotes'
            )
    return values


def _parse_condition(path: Path, values: Any) -> ConditionPatterns:
    try:
        patterns = {str(name): re.compile(pattern) for name, pattern in values.items()}
    except (AttributeError, TypeError, re.error) as error:
        raise SartmError(
            f'{path} has condition: {values!r} ({error}); expected names with regular expressions'
        ) from error
    return ConditionPatterns(patterns)
