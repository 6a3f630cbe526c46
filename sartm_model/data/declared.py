"""The data set `folder`: the files of your own frames, found as a YAML file declares them.

The module `declaration` describes that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sartm_model.data.declaration import UNKNOWN_CLASSES, Declaration, read_declaration
from sartm_model.data.file_faults import FileFault, FileFaults
from sartm_model.data.file_frames import FileFrames, FrameFiles, suffixes_of
from sartm_model.data.frame_list import check_stems, read_stems
from sartm_model.errors import SartmError, raise_faults


def open_declared(root: Path, split: str) -> FileFrames:
    """Open a split of the data set that the YAML file `root` declares.

    Raises:
        SartmError: the file does not declare a data set, there is no such split, or a frame has no
            file or two files of a part. The text has the first fault and the number of the others.
    """
    declaration, faults = read_declaration(root)
    files: dict[str, FrameFiles] = {}
    if declaration is not None:
        files, of_files = split_files(declaration, split)
        faults += of_files
    raise_faults([fault.error for fault in faults], '; sartm data check lists all')
    assert declaration is not None  # else there was a fault
    return open_files(declaration, files)


def open_files(declaration: Declaration, files: Mapping[str, FrameFiles]) -> FileFrames:
    """Return the frames of these files; labels are not read if their classes are unknown."""
    if declaration.label_space is UNKNOWN_CLASSES:
        files = {stem: replace(of_frame, labels=None) for stem, of_frame in files.items()}
    return FileFrames(
        files,
        declaration.label_space,
        aligned=True,
        label_map=declaration.label_map,
        condition=declaration.condition,
        resize=declaration.resize,
    )


def split_files(declaration: Declaration, split: str) -> tuple[dict[str, FrameFiles], FileFaults]:
    """Return the files of each frame of a split by its stem, and what is wrong with them.

    A part of which a frame has no usable file is left out.
    """
    faults = FileFaults()
    with faults.noted_for(_split_file(declaration, split)):
        base, patterns, stems = _find_split(declaration, split)
    if faults:
        return {}, faults
    found: dict[str, dict[str, list[Path]]] = {}
    for part, pattern in patterns.items():
        with faults.noted_for((base / pattern).parent):
            found[part] = find_files(base, pattern, part)
    if stems is None:
        stems = sorted(set().union(*found.values()))
    files = {}
    for stem in stems:
        one_each: dict[str, Path | None] = {}
        for part, by_stem in found.items():
            paths = by_stem.get(stem, [])
            one_each[part] = paths[0] if len(paths) == 1 else None
            wanted = base / patterns[part].replace('{stem}', stem)
            if not paths:
                faults.append(FileFault(wanted, _missing(wanted, part, stem)))
            elif len(paths) > 1:
                faults.append(FileFault(wanted, _ambiguous(paths, part, stem)))
        files[stem] = FrameFiles.of_parts(one_each)
    if not files and not faults:
        faults.add(base, f'has no image of the split {split}; add its frames, or remove the split')
    return files, faults


def find_files(base: Path, pattern: str, part: str) -> dict[str, list[Path]]:
    """Return the files that fit the pattern of a part, by their stem; hidden files are skipped.

    Raises:
        SartmError: the folder that the pattern names does not exist.
    """
    folder = (base / pattern).parent
    if not folder.is_dir():
        raise SartmError(f'{folder} does not exist; expected the folder of {pattern}')
    before, after = Path(pattern).name.split('{stem}')
    tail, dot, suffix = after.rpartition('.')
    suffixes = suffixes_of(part) if suffix == '*' else (dot + suffix.lower(),)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = path.stem
        if path.name.startswith('.') or path.suffix.lower() not in suffixes:
            continue
        if len(stem) > len(before) + len(tail) and stem.startswith(before) and stem.endswith(tail):
            found.setdefault(stem[len(before) : len(stem) - len(tail)], []).append(path)
    return found


def _find_split(
    declaration: Declaration, split: str
) -> tuple[Path, dict[str, str], list[str] | None]:
    """Return where the patterns of a split start, they themselves, and its stems.

    The stems are None for all that are there. In place of `{split}` a pattern gets the folder of
    the split, or the name of a split that is a list.
    """
    path = declaration.path
    if split not in declaration.splits:
        raise SartmError(
            f'{path} has no split {split!r}; its splits are: {", ".join(declaration.splits)}'
        )
    value = declaration.splits[split]
    patterns = declaration.patterns
    base, name, stems = path.parent, split, None
    if isinstance(value, list):
        stems = check_stems(value, f'the split {split} of {path}')
    elif (base / value).is_file():
        stems = read_stems(base / value)
    elif any('{split}' in pattern for pattern in patterns.values()):
        name = value
    elif (base / value).is_dir():
        base /= value
    else:
        raise SartmError(
            f'{base / value}, the split {split} of {path}, does not exist; expected a list of '
            'stems or a folder'
        )
    return base, {part: text.replace('{split}', name) for part, text in patterns.items()}, stems


def _split_file(declaration: Declaration, split: str) -> Path:
    """Return the file that lists the stems of a split; the YAML file where there is none."""
    value = declaration.splits.get(split)
    path = declaration.path.parent / value if isinstance(value, str) else declaration.path
    return path if path.is_file() else declaration.path


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
