"""The best and the worst frames of an evaluation, as pictures for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import cv2
import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Frame
from sartm_model.evaluation.evaluate import FramePrediction
from sartm_model.evaluation.report.page import class_name, percent, picture
from sartm_model.labels import LabelSpace
from sartm_model.utils.visualization import encode, false_color

SHOWN = 4  # frames of the best and of the worst
PICTURE_WIDTH = 480  # pixels


def best_and_worst_frames(
    result: Mapping[str, Any], dataset: PairDataset, predict: Callable[[Frame], FramePrediction]
) -> dict[str, str]:
    """The sections 'Best frames' and 'Worst frames' by their headings, each where there is one.

    The arguments are those of `write_report`.
    """
    space = dataset.label_space
    legend = ' '.join(
        f'<span>{class_name(name, color)}</span>'
        for name, color in zip(space.classes, space.colors, strict=True)
    )
    places = {name: index for index, name in enumerate(dataset.names)}
    sections = {}
    parts = zip(('Best frames', 'Worst frames'), best_and_worst(result['frame_miou']), strict=True)
    for heading, names in parts:
        if names:
            rows = []
            for name in names:
                frame = dataset[places[name]]
                known = [name, frame.condition, f'mIoU {percent(result["frame_miou"][name])}']
                caption = escape(' · '.join(part for part in known if part))
                rows.append(f'<p>{caption}</p>\n{_panels(frame, predict(frame).labels, space)}')
            sections[heading] = f'<p class="legend">{legend}</p>\n' + '\n'.join(rows)
    return sections


def _panels(frame: Frame, labels: np.ndarray, space: LabelSpace) -> str:
    """RGB, thermal, truth and prediction side by side, as the network saw and labelled them."""
    palette = space.palette()
    images = {
        'RGB': frame.rgb,
        'thermal': None if frame.thermal is None else false_color(frame.thermal),
        'truth': None if frame.labels is None else palette[frame.labels],
        'prediction': palette[labels],
    }
    cells = []
    for what, image in images.items():
        shown = '<div class="none">not given</div>'
        if image is not None:
            ids = what in ('truth', 'prediction')  # few colours, which must not be mixed
            kind = 'png' if ids else 'jpg'
            content = encode(_fitted(image, cv2.INTER_NEAREST if ids else cv2.INTER_AREA), kind)
            alt = f'{what} of {frame.name}'
            shown = picture(content, 'png' if ids else 'jpeg', alt)
        cells.append(f'<figure>{shown}<figcaption>{what}</figcaption></figure>')
    return f'<div class="frame">{"".join(cells)}</div>'


def _fitted(image: np.ndarray, interpolation: int) -> np.ndarray:
    """The image, shrunk to `PICTURE_WIDTH` where it is wider."""
    height, width = image.shape[:2]
    if width <= PICTURE_WIDTH:
        return image
    size = (PICTURE_WIDTH, max(round(height * PICTURE_WIDTH / width), 1))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation)


def best_and_worst(frame_miou: Mapping[str, float | None]) -> tuple[list[str], list[str]]:
    """The names of the best frames, the best first, and of the worst, the worst first.

    Frames without a figure are left out, and no frame is in both.
    """
    known = {name: miou for name, miou in frame_miou.items() if miou is not None}
    ranked = sorted(known, key=lambda name: -known[name])
    best = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    return best, ranked[len(best) :][: -SHOWN - 1 : -1]
