"""The YAML file that declares the data set `folder`: your own frames and classes.

    label_space: classes.yaml             # a file, a built-in name, or what such a file contains
    images: {rgb: 'rgb/{stem}.*', thermal: 'thermal/{stem}.*'}
    labels: 'masks/{stem}.png'
    label_map: {7: road, 11: person}      # or ids (the default), or colours; see `label_map`
    splits: {train: train.txt, val: ['0007', '0008'], test: recorded_in_may}
    condition: {night: 'N$', day: 'D$'}   # optional
    resize: false                         # optional; true: all images to the size of the first one

The keys of `images` are modalities. Paths start from the folder of the YAML file. `{stem}` is the
name of a frame, and `.*` any suffix that files of the modality have. Suffixes are found in upper
and lower case. A split is a text file with one stem per line, a list of stems, or a folder. In the
latter case the patterns start from that folder, or have its name in place of `{split}`, as in
'rgb/{split}/{stem}.*', and all that is found there belongs to the split. The condition of a frame
is the first whose regular expression is found in its stem.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sartm_model.data.file_faults import FileFaults
from sartm_model.data.label_map import LabelMap, parse_label_map
from sartm_model.data.label_space_file import (
    label_space_path,
    parse_label_space,
    read_label_space,
    read_yaml,
)
from sartm_model.errors import SartmError
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES

KEYS = ('label_space', 'images', 'labels', 'label_map', 'splits', 'condition', 'resize')
REQUIRED = ('label_space', 'images', 'splits')

UNKNOWN_CLASSES = LabelSpace('unknown', ('unknown',), ((255, 255, 255),))
"""Stands for the classes of a data set whose own cannot be told."""


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
        label_space: `UNKNOWN_CLASSES` if it or the `label_map` is faulty as a whole.
        patterns: part (a modality, or 'labels') -> pattern of its files.
    """

    path: Path
    label_space: LabelSpace
    patterns: dict[str, str]
    label_map: LabelMap | None
    splits: dict[str, str | list[str]]
    condition: ConditionPatterns
    resize: bool


def read_declaration(path: Path) -> tuple[Declaration | None, FileFaults]:
    """Read the YAML file of a data set, and its file of classes.

    Returns:
        The declaration without what is faulty, and all faults. The declaration is None if no image
        could be found by it.

    Raises:
        SartmError: the path is a folder.
    """
    if path.is_dir():
        raise SartmError(
            f'{path} is a folder; the data set folder needs the YAML file that declares it, which '
            f'sartm data init {path} writes'
        )
    faults = FileFaults()
    fault = partial(faults.add, path)
    values: Any = None
    with faults.noted_for(path) as errors:
        values = read_yaml(path, errors)
    if not isinstance(values, dict):
        if not faults:
            fault(f'declares no data set; expected the keys {", ".join(KEYS)}')
        return None, faults
    for key in values:
        if key not in KEYS:
            fault(f'has the key {key!r}; expected {", ".join(KEYS)}')
    for key in REQUIRED:
        if not values.get(key):
            fault(f'lacks {key}; docs/own_data.md has an example')
    space, label_map = _parse_classes(path, values, faults)
    resize = values.get('resize', False)
    if not isinstance(resize, bool):
        fault(f'has resize: {resize!r}; expected true or false')
    patterns = _parse_patterns(values.get('images'), values.get('labels'), fault)
    splits = _parse_splits(values.get('splits'), fault)
    condition = _parse_condition(values.get('condition') or {}, fault)
    if not patterns.keys() & MODALITIES.keys():
        return None, faults
    return Declaration(path, space, patterns, label_map, splits, condition, bool(resize)), faults


def _parse_classes(
    path: Path, values: dict[str, Any], faults: FileFaults
) -> tuple[LabelSpace, LabelMap | None]:
    """Return the label space and the label map; `UNKNOWN_CLASSES` if one is faulty as a whole."""
    given = values.get('label_space')
    if not given:
        return UNKNOWN_CLASSES, None
    space = None
    if isinstance(given, str):
        with faults.noted_for(label_space_path(given, path.parent) or path) as errors:
            space = read_label_space(given, path.parent, errors)
    else:
        with faults.noted_for(path) as errors:
            space = parse_label_space(given, path.stem, str(path), errors)
    if space is not None:
        with faults.noted_for(path) as errors:
            return space, parse_label_map(values.get('label_map'), space, str(path), errors)
    return UNKNOWN_CLASSES, None


def _parse_patterns(images: Any, labels: Any, fault: Callable[[str], None]) -> dict[str, str]:
    """Return the pattern of each part, without those that cannot be used."""
    patterns: dict[str, str] = {}
    if images and not isinstance(images, dict):
        fault(f"has images: {images!r}; expected a mapping such as {{rgb: 'rgb/{{stem}}.*'}}")
    given = dict(images) if isinstance(images, dict) else {}
    for name in list(given):
        if name not in MODALITIES:
            fault(f'has images of {name!r}; expected one or more of {", ".join(MODALITIES)}')
            del given[name]
    if labels is not None:
        given['labels'] = labels
    for part, pattern in given.items():
        name = Path(pattern).name if isinstance(pattern, str) else ''
        if name.count('{stem}') != 1 or not Path(name).suffix or str(pattern).count('{stem}') != 1:
            fault(
                f'has the pattern {pattern!r} for {part}; expected a file name with {{stem}} once '
                "and a suffix, such as 'rgb/{stem}.png', or '.*' for any image"
            )
        else:
            patterns[part] = pattern
    return patterns


def _parse_splits(values: Any, fault: Callable[[str], None]) -> dict[str, str | list[str]]:
    """Return the splits, without those that cannot be used."""
    expected = "expected a mapping such as {train: train.txt, val: ['0007', '0008']}"
    if not isinstance(values, dict):
        if values:
            fault(f'has splits: {values!r}; {expected}')
        return {}
    splits = {}
    for name, value in values.items():
        stems = value if isinstance(value, list) else [value]
        if isinstance(name, str) and all(isinstance(stem, str) for stem in stems):
            splits[name] = value
        else:
            fault(f'has the split {name!r}: {value!r}; {expected}, with numbers in quotes')
    return splits


def _parse_condition(values: Any, fault: Callable[[str], None]) -> ConditionPatterns:
    """Return the conditions, without those that cannot be used."""
    expected = "expected names with regular expressions, such as {night: 'N$'}"
    if not isinstance(values, dict):
        fault(f'has condition: {values!r}; {expected}')
        return ConditionPatterns({})
    patterns = {}
    for name, pattern in values.items():
        try:
            patterns[str(name)] = re.compile(pattern)
        except (TypeError, re.error) as error:
            fault(f'has the condition {name!r}: {pattern!r} ({error}); {expected}')
    return ConditionPatterns(patterns)
