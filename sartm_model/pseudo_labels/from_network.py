"""Pseudo-labels (self-training): confident predictions of a network as labels for another one.

The result is a data set `folder`: a YAML file, a list of frames, one label image a frame and a
manifest. The images stay where they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sartm_model.data.file_frames import FileFrames
from sartm_model.data.frame_list import list_of_stems
from sartm_model.errors import SartmError
from sartm_model.evaluation.multi_scale_flip import check_scales, probabilities
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.pseudo_labels.declare import FILE, LIST, MANIFEST, declaration, manifest
from sartm_model.utils.files import new_folder, write_file
from sartm_model.utils.visualization import encode


def confident_labels(found: Tensor, thresholds: Tensor) -> Tensor:
    """Return the most probable class of each pixel whose probability is above a threshold.

    Args:
        found: probabilities `[K, H, W]`.
        thresholds: of each class, `[K]`.

    Returns:
        uint8 `[H, W]`, 255 where the probability is not above the threshold of its class.
    """
    probability, classes = found.max(dim=0)
    sure = probability > thresholds[classes]
    return torch.where(sure, classes, IGNORE_ID).to(torch.uint8)


def class_thresholds(space: LabelSpace, threshold: float, background: float) -> Tensor:
    """Return the threshold of each class, float32 `[K]`.

    Raises:
        SartmError: a threshold is no probability below 1.
    """
    for value in (threshold, background):
        if not 0 <= value < 1:
            raise SartmError(f'threshold {value:g}; expected a probability, 0 to below 1')
    return torch.where(torch.from_numpy(space.is_object()), threshold, background).float()


def write_pseudo_labels(
    predictor: Predictor,
    dataset: FileFrames,
    out: Path,
    thresholds: Tensor,
    scales: Sequence[float],
    settings: Mapping[str, Any],
) -> np.ndarray:
    """Label the frames of a data set and write `out/data.yaml`, which declares them.

    The probabilities are the mean over each frame and its mirror image, at each of `scales`. Frames
    of which no pixel is kept are left out.

    Args:
        predictor: of the teacher.
        dataset: gives the frames; its labels, if it has any, are not used.
        out: a new folder. An interrupted run leaves nothing there.
        thresholds: of each class, as `class_thresholds` returns them.
        scales: factors of height and width.
        settings: what the manifest says besides, such as the checkpoint and the data set.

    Returns:
        Pixels by label, int64 `[256]`.

    Raises:
        SartmError: `out` exists, a frame cannot be read, its images are not in files of their own,
            or no pixel is kept.
    """
    check_scales(scales)
    images = image_patterns(dataset, out)
    thresholds = thresholds.to(predictor.device)
    counts = np.zeros(256, np.int64)
    names = []
    with new_folder(out) as folder:
        for frame in tqdm(dataset, total=len(dataset), unit='frame', disable=None):
            found = probabilities(
                predictor, frame.select(predictor.modalities), flip=True, scales=scales
            )
            labels = confident_labels(found, thresholds).cpu().numpy()
            of_frame = np.bincount(labels.ravel(), minlength=256)
            counts += of_frame
            if of_frame[:IGNORE_ID].any():
                names.append(frame.name)
                write_file(folder / 'labels' / f'{frame.name}.png', encode(labels))
        if not names:
            raise SartmError(
                f'no pixel of {len(dataset)} frames has a probability above its threshold; lower '
                'the thresholds, or train the network longer'
            )
        write_file(folder / LIST, list_of_stems(names))
        space = predictor.label_space
        write_file(folder / FILE, declaration(space, images, resize=dataset.resize))
        by_class = zip(space.classes, thresholds.tolist(), strict=True)
        given = {
            **settings,
            'thresholds': {name: round(value, 6) for name, value in by_class},
            'scales': list(scales),
        }
        write_file(folder / MANIFEST, manifest(given, space, len(dataset), len(names), counts))
    return counts


def image_patterns(dataset: FileFrames, out: Path) -> dict[str, str]:
    """Return the pattern of the images of each modality, relative to the folder `out`.

    Raises:
        SartmError: two modalities share a file, or the files of a modality have no common pattern.
    """
    files = dict(zip(dataset.names, dataset.files, strict=True))
    patterns = {}
    for modality in dataset.files[0].images:
        paths = {name: of_frame.images[modality] for name, of_frame in files.items()}
        patterns[modality] = _pattern(paths, out)
    if len(set(patterns.values())) < len(patterns):
        raise SartmError(
            f'the images, such as {dataset.files[0].paths()[0]}, hold several modalities in one '
            'file; the data set folder needs a file of each'
        )
    return patterns


def _pattern(paths: Mapping[str, Path], out: Path) -> str:
    """Return the pattern that the files of all frames, by the frame's name, fit."""
    name, first = next(iter(paths.items()))
    suffixes = {path.suffix for path in paths.values()}
    suffix = suffixes.pop() if len(suffixes) == 1 else '.*'
    folder = os.path.relpath(os.path.abspath(first.parent), os.path.realpath(out))
    # The name of the first frame may occur in its file's name more than once: cam1_1.png.
    for match in re.finditer(f'(?={re.escape(name)})', first.stem):
        before, after = first.stem[: match.start()], first.stem[match.start() + len(name) :]
        expected = {
            first.parent / f'{before}{frame}{after}{paths[frame].suffix}' for frame in paths
        }
        if expected == set(paths.values()):
            return f'{folder}/{before}{{stem}}{after}{suffix}'
    raise SartmError(
        f'the files of the frames, such as {first}, have no common pattern; expected them in one '
        'folder, named after the frames'
    )
