"""The result of `sartm data check`, as plain values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.data.file_faults import FileFault
from sartm_model.data.frame import Frame, split_conditions
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.utils.text import format_names


@dataclass
class SplitSummary:
    """The contents of a split.

    Attributes:
        frames: number of frames.
        unusable: number of frames with a fault.
        conditions: number of frames of each condition, such as day and night.
        sizes: number of frames of each size, '<width>x<height>'.
        types: modality -> number of images of each dtype.
        ranges: modality -> lowest and highest count of all frames.
        pixels: int64 `[256]`, number of pixels of each id, 255 included.
        frames_with: int64 `[256]`, number of frames in which an id occurs.
    """

    frames: int
    unusable: int = 0
    conditions: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)
    types: dict[str, Counter] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    frames_with: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, frame: Frame) -> None:
        """Count the images of a frame that could be read."""
        self.conditions.update(split_conditions(frame.condition))
        for image in list(frame.images.values())[:1]:
            self.sizes[f'{image.shape[1]}x{image.shape[0]}'] += 1
        for name, image in frame.images.items():
            self.types.setdefault(name, Counter())[str(image.dtype)] += 1
            extremes = [image.min().item(), image.max().item(), *self.ranges.get(name, ())]
            self.ranges[name] = min(extremes), max(extremes)
        if frame.labels is not None:
            counts = np.bincount(frame.labels.ravel(), minlength=256)
            self.pixels += counts
            self.frames_with += counts > 0

    def merge(self, frame: SplitSummary) -> None:
        """Add the contents of one frame of the split."""
        self.unusable += frame.unusable
        self.conditions += frame.conditions
        self.sizes += frame.sizes
        for name, types in frame.types.items():
            self.types.setdefault(name, Counter()).update(types)
            extremes = [*frame.ranges[name], *self.ranges.get(name, ())]
            self.ranges[name] = min(extremes), max(extremes)
        self.pixels += frame.pixels
        self.frames_with += frame.frames_with

    def to_dict(self, space: LabelSpace) -> dict[str, Any]:
        """Return plain values for JSON, the classes by name."""
        share = 100 * self.pixels / max(1, self.pixels.sum())
        return {
            'frames': self.frames,
            'unusable': self.unusable,
            'conditions': dict(self.conditions),
            'sizes': dict(self.sizes),
            **{f'{name}_types': dict(types) for name, types in self.types.items()},
            **{f'{name}_range': range_ for name, range_ in self.ranges.items()},
            'classes': {
                name: {'pixels_percent': float(share[i]), 'frames': int(self.frames_with[i])}
                for i, name in enumerate(space.classes)
            },
            'not_labelled_percent': float(share[IGNORE_ID]),
        }


@dataclass
class Report:
    """All that a check found.

    Attributes:
        unpaired: stems that one folder has and another lacks.
        unlisted: image files that are in no split.
        faults, warnings: pairs of a file (or split and frame) and what is wrong with it.
    """

    dataset: str
    label_space: LabelSpace
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    # Dictionaries are ordered sets: a file in two lists is read twice but has one fault.
    faults: dict[tuple[str, str], None] = field(default_factory=dict)
    warnings: dict[tuple[str, str], None] = field(default_factory=dict)

    def fault(self, file: Path, what: object) -> None:
        """Add a fault; a file name at the beginning of the error's text is removed."""
        self.faults[str(file), str(what).removeprefix(f'{file} ')] = None

    def add_faults(self, faults: Iterable[FileFault]) -> None:
        """Add the faults of several files."""
        for path, error in faults:
            self.fault(path, error)

    def warn(self, file: object, what: str) -> None:
        """Add a warning."""
        self.warnings[str(file), what] = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            'dataset': self.dataset,
            'splits': {n: s.to_dict(self.label_space) for n, s in self.splits.items()},
            'unpaired_stems': self.unpaired,
            'files_in_no_split': self.unlisted,
            'faults': [{'file': file, 'fault': what} for file, what in self.faults],
            'warnings': [{'file': file, 'warning': what} for file, what in self.warnings],
        }


def summary(report: Report) -> str:
    """Return the report as text: one table per split, then faults, then warnings."""
    lines = []
    for name, split in report.splits.items():
        counts = ', '.join(f'{n} {name}' for name, n in sorted(split.conditions.items()))
        conditions = f' ({counts})' if counts else ''
        images = [
            f'{MODALITIES[modality].title} {_counts(types)} {low:g} to {high:g}'
            for (modality, types), (low, high) in zip(
                split.types.items(), split.ranges.values(), strict=True
            )
            if MODALITIES[modality].dtypes != ('uint8',)  # bytes have no range of interest
        ]
        sizes = _counts(split.sizes)
        details = ', '.join([f'{split.unusable} unusable', sizes, *images])
        lines.append(f'{name}: {split.frames} frames{conditions}, {details}')
        if not split.pixels.any():
            continue
        lines.append(f'  {"class":20}{"% of pixels":>12}{"frames":>8}')
        values = split.to_dict(report.label_space)
        for label, found in values['classes'].items():
            lines.append(f'  {label:20}{found["pixels_percent"]:12.3f}{found["frames"]:8d}')
        if values['not_labelled_percent']:
            lines.append(f'  {"(not labelled)":20}{values["not_labelled_percent"]:12.3f}')
    lines += [f'fault: {file}: {what}' for file, what in report.faults]
    lines += [f'warning: {file}: {what}' for file, what in report.warnings]
    unlisted = f' ({format_names(report.unlisted)})' if report.unlisted else ''
    lines.append(
        f'{len(report.faults)} faults, {len(report.warnings)} warnings, '
        f'{len(report.unpaired)} unpaired stems, {len(report.unlisted)} files in no split{unlisted}'
    )
    return '\n'.join(lines)


def _counts(counts: Counter) -> str:
    """Return '640x480' for a single kind, or '3 of 640x480 and 1 of 320x240' for several."""
    if len(counts) < 2:
        return next(iter(counts), 'none')
    return ' and '.join(f'{n} of {kind}' for kind, n in counts.most_common())
