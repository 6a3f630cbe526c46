"""`sartm data init`: write the YAML file of the data set `folder` from what is in a folder.

The file is a draft for the user to correct: the values in the masks have no names yet, and the
parts are told from the names of the folders and from the first image in each.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from sartm_model.data.file_frames import images_in, suffixes_of
from sartm_model.data.frame_list import list_of_stems
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID
from sartm_model.modalities import MODALITIES
from sartm_model.utils.files import write_file
from sartm_model.utils.image_io import read_label_colors, read_raw_ids
from sartm_model.utils.text import format_names

FILE = 'data.yaml'
VAL_FRACTION = 0.2
MAX_VALUES = 64
"""More values than this are no classes, for example those of a mask saved as JPEG."""

LABEL_FOLDERS = r'label|mask|seg|annot|truth|gt(?![a-z])'
"""Regular expression for the names of folders of masks."""


@dataclass(frozen=True)
class Draft:
    """What was found and written.

    Attributes:
        path: the YAML file.
        frames: number of frames that have a file of every part.
        incomplete: stems that lack a file of a part.
        folders: part -> its folder, with `{split}` where frames are in folders of splits.
        unused: names of folders that are left out, such as a split that lacks a part.
        values: number of different values in the masks.
    """

    path: Path
    frames: int
    incomplete: list[str]
    folders: dict[str, Path]
    unused: list[str]
    values: int


def write_draft(root: Path, seed: int = 0) -> Draft:
    """Write `data.yaml`, `train.txt` and `val.txt` to a folder.

    Without masks there is one list, `all.txt`: such frames can only be labelled. Where the frames
    are in folders such as `train` and `val`, these are the splits, and there are no lists.

    Args:
        root: has a folder of images for each part (a modality, or the masks), as have the folders
            of splits in it; or its folders of parts have such folders of splits.
        seed: of the random split of the frames, 80 % for training and 20 % for validation.

    Raises:
        SartmError: one of the files exists, there are no such folders, or their files do not
            belong together.
    """
    if not root.is_dir():
        raise SartmError(f'{root} is not a folder; expected one with rgb, thermal and masks in it')
    folders, split_folders, unused = _find_layout(root)
    # One entry for each folder of a split, or one for all frames.
    files = [
        {
            part: images_in(root / folder.replace('{split}', split), part)
            for part, folder in folders.items()
        }
        for split in split_folders or ['']
    ]
    by_stem, affixes = _remove_affixes(files)
    stems = [sorted(set.intersection(*map(set, of_split.values()))) for of_split in by_stem]
    frames = [
        {part: of_split[part][stem] for part in folders}
        for of_split, common in zip(by_stem, stems, strict=True)
        for stem in common
    ]
    if not frames:
        firsts = [next(iter(paths.values())).name for paths in by_stem[0].values()]
        raise SartmError(
            f'the files in the folders of {root} have no names in common ({format_names(firsts)}); '
            'expected files of one frame to have the same name but for what all of a folder share'
        )
    patterns = {
        part: f'{folder}/{before}{{stem}}{after}.*'
        for (part, folder), (before, after) in zip(folders.items(), affixes.values(), strict=True)
    }
    has_masks = 'labels' in folders
    counts = count_values(frame['labels'] for frame in frames) if has_masks else {}
    incomplete = sorted(
        stem
        for of_split, common in zip(by_stem, stems, strict=True)
        for stem in set().union(*of_split.values()).difference(common)
    )
    lists: dict[str, list[str]] = {}
    if not split_folders:
        lists = _split(stems[0], seed) if has_masks else {'all': stems[0]}
    splits = {name: name for name in split_folders} or {name: f'{name}.txt' for name in lists}
    text = _draft_text(root, patterns, counts, splits, _needs_resize(frames[0]))
    contents = {
        **{f'{name}.txt': list_of_stems(part) for name, part in lists.items()},
        FILE: text,
    }
    for name in contents:
        if (root / name).exists():
            raise SartmError(f'{root / name} exists already; remove it, or correct it by hand')
    for name, content in contents.items():
        write_file(root / name, content)
    paths = {part: root / folder for part, folder in folders.items()}
    return Draft(root / FILE, len(frames), incomplete, paths, unused, len(counts))


def count_values(paths: Iterable[Path]) -> dict[int | str, tuple[int, int]]:
    """Count pixels and masks of each value: of a raw id, or of a colour '#rrggbb'."""
    pixels: Counter[int | str] = Counter()
    masks: Counter[int | str] = Counter()
    for path in paths:
        try:
            values, counts = np.unique(read_raw_ids(path), return_counts=True)
            names: list[int | str] = list(values.tolist())
        except SartmError as error:
            try:  # a coloured picture
                colors = read_label_colors(path).reshape(-1, 3).astype(np.int32)
            except SartmError:
                raise error from None
            values, counts = np.unique(colors @ (1 << 16, 1 << 8, 1), return_counts=True)
            names = [f'#{value:06x}' for value in values.tolist()]
        if len(names) > MAX_VALUES:
            raise SartmError(
                f'{path} has {len(names)} different values; expected at most {MAX_VALUES} classes. '
                'Is it a mask? One saved as JPEG has lost its values'
            )
        for name, count in zip(names, counts.tolist(), strict=True):
            pixels[name] += count
            masks[name] += 1
    return {name: (pixels[name], masks[name]) for name in sorted(pixels, key=_sort_key)}


def _sort_key(value: int | str) -> tuple[bool, int | str]:
    return isinstance(value, str), value


def _find_layout(root: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the folder of each part, relative to the root, the names of splits, and unused ones.

    The parts are in the order of `MODALITIES`, the masks last. `{split}` stands in the folder of a
    part, before or after its own name, where there are folders of splits. Unused are folders of
    splits that lack a part, and folders that are called like a part and have no images themselves.
    """
    folders = {path.name: _subfolders(path) for path in _subfolders(root)}
    splits: list[str] = []
    parts = _find_parts({name: root / name for name in folders})
    inner = {path.name for paths in folders.values() for path in paths}
    unused = {name for name in folders if _parts_called(name)}.difference(parts.values())
    if not parts and _share_called(inner) > _share_called(folders):
        found = {
            split: _find_parts({path.name: path for path in paths})
            for split, paths in folders.items()
        }
        most = max(found.values(), key=len)
        splits = [split for split, there in found.items() if there == most]
        unused = {split for split, there in found.items() if there}.difference(splits)
        parts = {part: f'{{split}}/{name}' for part, name in most.items()}
    elif not parts:
        parts = _find_parts({name: paths[0] for name, paths in folders.items() if paths})
        names = [{path.name for path in folders[name]} for name in parts.values()]
        splits = sorted(set.intersection(*names)) if names else []
        if parts and not splits:
            raise SartmError(
                f'the folders in {format_names([root / name for name in parts.values()])} have no '
                'names in common; expected the same folders of splits or sequences in each'
            )
        unused = set().union(*names).difference(splits)
        parts = {part: f'{name}/{{split}}' for part, name in parts.items()}
    if not parts.keys() & MODALITIES.keys():
        raise SartmError(
            f'{root} has no folder of images; expected folders such as '
            f'{", ".join(MODALITIES)} and masks, or such in train and val'
        )
    in_order = {part: parts[part] for part in (*MODALITIES, 'labels') if part in parts}
    return in_order, splits, sorted(unused)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != '.')


def _find_parts(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the name of the folder of each part.

    Args:
        folders: name -> where its images are, or some of them.
    """
    found: dict[str, str] = {}
    for name, folder in folders.items():
        part = _part_of(name, folder)
        if part is None:
            continue
        if part in found:
            raise SartmError(
                f'{folders[found[part]]} and {folder} both seem to be folders of {part} images; '
                'rename one of them: names with rgb, thermal and mask in them are understood'
            )
        found[part] = name
    return found


def _parts_called(name: str) -> list[str]:
    """Return the parts that a folder may hold by its name, the most likely first."""
    # RGB last, whose words are the most general.
    names = {part: modality.folder_names for part, modality in reversed(MODALITIES.items())}
    return [
        part
        for part, words in {'labels': LABEL_FOLDERS, **names}.items()
        if re.search(rf'(?<![a-z])({words})', name.lower())
    ]


def _share_called(names: Collection[str]) -> float:
    """Return the share of names that are called like a part; 0 without names."""
    return sum(bool(_parts_called(name)) for name in names) / max(1, len(names))


def _part_of(name: str, folder: Path) -> str | None:
    """Tell by a name, or else by the first image of a folder, what it holds; None if nothing.

    Raises SartmError if two of its images have the same stem.
    """
    suffixes = {path.suffix.lower() for path in folder.iterdir() if path.name[0] != '.'}
    for part in _parts_called(name):
        if not suffixes.isdisjoint(suffixes_of(part)):
            return part
    if suffixes.isdisjoint(suffixes_of('labels')):
        return None
    first = next(iter(images_in(folder).values()))
    try:
        values = read_raw_ids(first)
    except SartmError:
        return 'rgb'
    return 'labels' if len(np.unique(values)) <= MAX_VALUES else 'thermal'


def _remove_affixes(
    files: Sequence[Mapping[str, Mapping[str, Path]]],
) -> tuple[list[dict[str, dict[str, Path]]], dict[str, tuple[str, str]]]:
    """Make stems of the names of files: without what all names of a part begin and end with.

    Args:
        files: for each split, part -> name -> file.

    Returns:
        For each split, part -> stem -> file; and what was removed at the beginning and at the end
        of the names of each part: nothing, if a frame's files have the same name as they are.
    """
    affixes = dict.fromkeys(files[0], ('', ''))
    if not any(set.intersection(*map(set, of_split.values())) for of_split in files):
        affixes = {
            part: _common_affixes([name for of_split in files for name in of_split[part]])
            for part in affixes
        }
    by_stem = [
        {
            part: {
                name[len(before) : len(name) - len(after)]: path
                for name, path in of_split[part].items()
            }
            for part, (before, after) in affixes.items()
        }
        for of_split in files
    ]
    return by_stem, affixes


def _common_affixes(stems: Sequence[str]) -> tuple[str, str]:
    """Return what all stems begin and end with, without digits: ('', '_t') of 01_t and 02_t.

    A single stem tells nothing.
    """
    if len(stems) == 1:
        return '', ''
    before, after = _common_start(stems), _common_start([stem[::-1] for stem in stems])
    return re.split(r'\d', before)[0], re.split(r'\d', after)[0][::-1]


def _common_start(texts: Sequence[str]) -> str:
    """Return the longest text that all texts begin with."""
    shared = 0
    for letters in zip(*texts, strict=False):
        if len(set(letters)) > 1:
            break
        shared += 1
    return texts[0][:shared]


def _needs_resize(frame: Mapping[str, Path]) -> bool:
    """Whether the images of a frame, by part, have different sizes."""
    names = [name for name in frame if name in MODALITIES]
    return len({MODALITIES[name].read(frame[name]).shape[:2] for name in names}) > 1


def _split(stems: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Draw training and validation frames; with two frames or more, both have one."""
    order = np.random.default_rng(seed).permutation(len(stems))
    count = max(1, round(VAL_FRACTION * len(stems))) if len(stems) > 1 else 0
    drawn = [sorted(stems[i] for i in part) for part in (order[:count], order[count:])]
    return {'train': drawn[1], 'val': drawn[0]}


def _draft_text(
    root: Path,
    patterns: Mapping[str, str],
    counts: Mapping[int | str, tuple[int, int]],
    splits: Mapping[str, str],
    resize: bool,
) -> str:
    """Return the text of the YAML file. JSON's quotes are valid in YAML."""
    ignored = {IGNORE_ID} if counts.keys() - {0, IGNORE_ID} else set()
    names = {
        value: f'id_{value}'.replace('#', '')
        for value in counts
        if value not in ignored
    }  # fmt: skip
    total = max(1, sum(pixels for pixels, _ in counts.values()))
    labelled = [counts[value][0] for value in names]
    background = next((i for i, pixels in enumerate(labelled) if 2 * pixels > sum(labelled)), None)
    if 'labels' in patterns:
        head = [
            '# Written by sartm data init. Give the classes their names, in names and in '
            'label_map;',
            '# then run: sartm data check --dataset folder --root data.yaml',
        ]
    else:
        head = [
            '# Written by sartm data init, which found no masks. sartm pseudo-label can label',
            '# these frames with the classes of a network; the class below is not used then.',
        ]
    lines = [
        *head,
        'label_space:',
        f'  name: {json.dumps(root.resolve().name, ensure_ascii=False)}',
        '  # The place in names, counted from 0, of the class of all that is of no interest, which',
        '  # training does not treat as an object; null if every class is of interest. Drafted is',
        '  # the class of more than half of the labelled pixels.',
        f'  background_id: {"null" if background is None else background}',
        '  names:',
        *(f'    - {name}' for name in names.values() or ['class_0']),
        'images:',
    ]
    lines += [
        f'  {part}: {json.dumps(pattern, ensure_ascii=False)}'
        for part, pattern in patterns.items()
        if part != 'labels'
    ]
    if 'labels' in patterns:
        lines += [
            f'labels: {json.dumps(patterns["labels"], ensure_ascii=False)}',
            '# Value in the masks: class. Several values may have one class; "ignore" means not '
            'labelled.',
            'label_map:',
        ]
    for value, (pixels, masks) in counts.items():
        key = f"'{value}'" if isinstance(value, str) else value
        share = f'{100 * pixels / total:.3g} % of the pixels, in {masks} masks'
        lines.append(f'  {key}: {names.get(value, "ignore")}  # {pixels} pixels, {share}')
    if splits.keys() >= {'train', 'val'}:
        lines += ['# Frames of one recording look alike: they should be in one split, not in both.']
    in_one_line = yaml.safe_dump(
        dict(splits), default_flow_style=True, sort_keys=False, allow_unicode=True
    )
    lines += [f'splits: {in_one_line.strip()}']
    if resize:
        lines += [
            '# The images of a frame have different sizes: all get the size of the first one.',
            'resize: true',
        ]
    lines += [
        '# Results are also given by condition, which a regular expression finds in the name of a',
        "# frame. For example: condition: {night: '_night', day: '_day'}",
    ]
    return '\n'.join(lines) + '\n'
