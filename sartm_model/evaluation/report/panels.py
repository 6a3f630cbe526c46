"""The best and the worst frames of an evaluation, as images for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.evaluation.evaluate import FramePrediction
from sartm_model.evaluation.report.rendering import data_uri, format_percent
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.utils.visualization import encode, shrink

NUM_SHOWN = 4  # frames of the best and of the worst


def best_and_worst_frames(
    frame_miou: Mapping[str, float | None],
    dataset: FrameDataset,
    predict: Callable[[Frame], FramePrediction],
    modalities: Sequence[str],
) -> dict[str, list[dict[str, Any]]]:
    """Return the frames to show under 'Best frames' and 'Worst frames'.

    Args:
        frame_miou: mIoU of each frame in percent by its name, None where nothing is labelled.
        dataset: the frames are read from it again.
        predict: predicts them again.
        modalities: whose images are shown.

    Returns:
        of each frame its `name`, `caption` and `images`: by name a data URI, None where the frame
        does not have the image.
    """
    indices = {name: index for index, name in enumerate(dataset.names)}
    shown: dict[str, list[dict[str, Any]]] = {}
    for heading, names in zip(('Best frames', 'Worst frames'), rank(frame_miou), strict=True):
        shown[heading] = []
        for name in names:
            frame = dataset[indices[name]]
            details = (name, frame.condition, f'mIoU {format_percent(frame_miou[name])}')
            shown[heading].append(
                {
                    'name': name,
                    'caption': ' · '.join(detail for detail in details if detail),
                    'images': _images(
                        frame, predict(frame).labels, dataset.label_space, modalities
                    ),
                }
            )
    return shown


def rank(frame_miou: Mapping[str, float | None]) -> tuple[list[str], list[str]]:
    """Return the names of the best frames, best first, and of the worst frames, worst first.

    Frames without a value are left out, and no frame is in both lists.
    """
    known = {name: miou for name, miou in frame_miou.items() if miou is not None}
    ranked = sorted(known, key=lambda name: -known[name])
    best = ranked[: min(NUM_SHOWN, (len(ranked) + 1) // 2)]
    return best, ranked[len(best) :][: -NUM_SHOWN - 1 : -1]


def _images(
    frame: Frame, labels: np.ndarray, space: LabelSpace, modalities: Sequence[str]
) -> dict[str, str | None]:
    """Encode the images, ground truth and prediction as data URIs.

    Photographs are JPEG; coloured labels are PNG and shrunk without mixing their colours.
    """
    palette = space.palette()
    truth = None if frame.labels is None else palette[frame.labels]
    photographs = {
        MODALITIES[name].title: MODALITIES[name].show(frame.images[name])
        if name in frame.images
        else None
        for name in modalities
    }
    colored = {'ground truth': truth, 'prediction': palette[labels]}
    return {
        **{
            name: None if image is None
            else data_uri(encode(shrink(image), 'jpg'), 'jpeg')
            for name, image in photographs.items()
        },
        **{
            name: None if image is None
            else data_uri(encode(shrink(image, cv2.INTER_NEAREST), 'png'), 'png')
            for name, image in colored.items()
        },
    }  # fmt: skip
