"""`sartm data init`: write the YAML file of the data set `folder` from what is in a folder.

The file is a draft for the user to correct: the values in the masks have no names yet, and the
parts are told from the names of the folders and from the first image in each.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartm_model.data.folder import images_in, suffixes_of
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
        folders: part -> its folder.
        values: number of different values in the masks.
    """

    path: Path
    frames: int
    incomplete: list[str]
    folders: dict[str, Path]
    values: int


def write_draft(root: Path, seed: int = 0) -> Draft:
    """Write `data.yaml`, `train.txt` and `val.txt` to a folder.

    Without masks there is one list, `all.txt`: such frames can only be labelled.

    Args:
        root: has a folder of images for each part: a modality, or the masks.
        seed: of the random split of the frames, 80 % for training and 20 % for validation.

    Raises:
        SartmError: one of the files exists, there are no such folders, or their files do not
            belong together.
    """
    if not root.is_dir():
        raise SartmError(f'{root} is not a folder; expected one with rgb, thermal and masks in it')
    folders = _find_parts(root)
    files = {part: images_in(folder, part) for part, folder in folders.items()}
    affixes = dict.fromkeys(files, ('', ''))
    if not set.intersection(*map(set, files.values())):
        affixes = {part: _common_affixes(list(stems)) for part, stems in files.items()}
    by_stem = {
        part: {
            name[len(before) : len(name) - len(after)]: path for name, path in files[part].items()
        }
        for part, (before, after) in affixes.items()
    }
    stems = sorted(set.intersection(*map(set, by_stem.values())))
    if not stems:
        firsts = [next(iter(paths.values())).name for paths in by_stem.values()]
        raise SartmError(
            f'the files in the folders of {root} have no names in common ({format_names(firsts)}); '
            'expected files of one frame to have the same name but for what all of a folder share'
        )
    patterns = {
        part: f'{folder.relative_to(root).as_posix()}/{before}{{stem}}{after}.*'
        for (part, folder), (before, after) in zip(folders.items(), affixes.values(), strict=True)
    }
    counts = count_values(by_stem['labels'][stem] for stem in stems) if 'labels' in folders else {}
    incomplete = sorted(set().union(*by_stem.values()) - set(stems))
    splits = _split(stems, seed) if 'labels' in folders else {'all': stems}
    text = _draft_text(root, patterns, counts, list(splits), _needs_resize(by_stem, stems[0]))
    contents = {
        **{f'{name}.txt': list_of_stems(part) for name, part in splits.items()},
        FILE: text,
    }
    for name in contents:
        if (root / name).exists():
            raise SartmError(f'{root / name} exists already; remove it, or correct it by hand')
    for name, content in contents.items():
        write_file(root / name, content)
    return Draft(root / FILE, len(stems), incomplete, folders, len(counts))


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


def _find_parts(root: Path) -> dict[str, Path]:
    """Return the folder of each part, in the order of `MODALITIES`, the masks last."""
    found: dict[str, Path] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != '.'):
        part = _part_of(folder)
        if part is None:
            continue
        if part in found:
            raise SartmError(
                f'{found[part]} and {folder} both seem to be folders of {part} images; rename one '
                'of them: names with rgb, thermal and mask in them are understood'
            )
        found[part] = folder
    if not found.keys() & MODALITIES.keys():
        raise SartmError(
            f'{root} has no folder of images; expected folders such as '
            f'{", ".join(MODALITIES)} and masks'
        )
    return {part: found[part] for part in (*MODALITIES, 'labels') if part in found}


def _part_of(folder: Path) -> str | None:
    """Tell by the name of a folder, or else by its first image, what it holds; None if nothing.

    Raises SartmError if two of its images have the same stem.
    """
    suffixes = {path.suffix.lower() for path in folder.iterdir() if path.name[0] != '.'}
    # RGB last, whose words are the most general.
    names = {name: modality.folder_names for name, modality in reversed(MODALITIES.items())}
    for part, words in {'labels': LABEL_FOLDERS, **names}.items():
        is_called = re.search(rf'(?<![a-z])({words})', folder.name.lower())
        if is_called and not suffixes.isdisjoint(suffixes_of(part)):
            return part
    if suffixes.isdisjoint(suffixes_of('labels')):
        return None
    first = next(iter(images_in(folder).values()))
    try:
        values = read_raw_ids(first)
    except SartmError:
        return 'rgb'
    return 'labels' if len(np.unique(values)) <= MAX_VALUES else 'thermal'


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


def _needs_resize(by_stem: Mapping[str, Mapping[str, Path]], stem: str) -> bool:
    """Whether the images of a frame have different sizes."""
    names = [name for name in by_stem if name in MODALITIES]
    return len({MODALITIES[name].read(by_stem[name][stem]).shape[:2] for name in names}) > 1


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
    splits: Sequence[str],
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
    if len(splits) > 1:
        lines += [
            '# Frames of one recording look alike: they should be in one of the lists, not in both.'
        ]
    lines += [f'splits: {{{", ".join(f"{name}: {name}.txt" for name in splits)}}}']
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
