"""The report of an evaluation: one HTML page that needs nothing beside it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.evaluation.boundary import TOLERANCE
from sartm_model.evaluation.evaluate import FramePrediction, condition_groups
from sartm_model.evaluation.metrics import MEANS
from sartm_model.evaluation.report.curves import curves_svg
from sartm_model.evaluation.report.panels import best_and_worst_frames
from sartm_model.evaluation.report.rendering import render
from sartm_model.labels import LabelSpace
from sartm_model.modalities import describe
from sartm_model.utils.files import write_file
from sartm_model.utils.versions import version_of

PACKAGES = ('sartm_ros', 'torch', 'sam2', 'numpy', 'matplotlib')


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    dataset: FrameDataset,
    predict: Callable[[Frame], FramePrediction],
) -> None:
    """Write `report.html` to `folder`, replacing an earlier one.

    Args:
        folder: created if it is missing.
        result: what `evaluate` returned, and the run's `settings`.
        dataset: what was evaluated; the best and the worst frames are read from it again.
        predict: what was evaluated; it predicts those frames again.
    """
    settings = result['settings']
    groups = {'all': result} | condition_groups(result)
    checkpoint = Path(settings['checkpoint']).name
    context = {
        'title': f'Evaluation of {checkpoint} on {settings["dataset"]} {settings["split"]}',
        'conditions': _conditions(result),
        'metrics': metrics_context(groups, dataset.label_space),
        'examples': best_and_worst_frames(
            result['frame_miou'], dataset, predict, settings['modalities']
        ),
        'settings': _settings(settings),
        'versions': _versions(),
    }
    write_file(folder / 'report.html', render('evaluation.html.j2', context))


def metrics_context(groups: Mapping[str, Mapping[str, Any]], space: LabelSpace) -> dict[str, Any]:
    """Return what the macros in `metrics.html.j2` show.

    Args:
        groups: results of `MetricAccumulator.compute` by the heading of their column; the group
            'all' contains all frames.
        space: names and colours of the classes.
    """
    overall = groups['all']
    counts, columns = np.array(overall['confusion']), list(space.classes)
    if 'unknown' in overall:
        counts, columns = np.column_stack((counts, overall['unknown'])), [*columns, 'unknown']
    total = max(int(counts.sum()), 1)
    means = MEANS | {
        'boundary_f1': 'boundary F1, classes present, without background',
        'ece': 'expected calibration error',
    }
    if 'f_measure' in overall:
        means['f_measure'] = 'weighted F-measure'
        means['f_measure_foreground'] = 'weighted F-measure without background'
    if space.background_id is None:
        for name in ('miou_foreground', 'f_measure_foreground'):
            means.pop(name, None)
        means['boundary_f1'] = 'boundary F1, classes present'
    # Papers differ in whether the background is one of the classes that they count.
    for name in ('miou', 'miou_foreground', 'f_measure', 'f_measure_foreground'):
        if name in means:
            num_classes = len(space) - name.endswith('_foreground')
            means[name] += f' ({num_classes} classes)'
    return {
        'groups': groups,
        'means': means,
        'class_measures': {
            'per_class_iou': 'IoU',
            'per_class_boundary_f1': 'boundary F1',
            **({'per_class_f_measure': 'weighted F-measure'} if 'f_measure' in overall else {}),
        },
        'classes': [
            {
                'name': name,
                'color': color,
                'pixels': sum(row),
                'share': 100 * sum(row) / total,
                'predicted_as': row,
            }
            for name, color, row in zip(space.classes, space.colors, counts.tolist(), strict=True)
        ],
        'columns': columns,
        'curves': Markup(curves_svg(overall)),
        'tolerance_percent': 100 * TOLERANCE,
    }


def _conditions(result: Mapping[str, Any]) -> list[str]:
    """Return what the network was given and how its heads were combined."""
    settings = result['settings']
    head, corruption = settings['head'], settings['corruption']
    return [
        describe(settings['modality'], settings['modalities']),
        'mean of all heads' if head == 'mean' else f'{head} head alone',
        'no corruption'
        if corruption is None
        else f'{corruption.replace("_", " ")}, severity {settings["severity"]}',
        f'{result["frames"]} frames',
    ]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    texts = {
        'root': settings['root'] or 'none',
        'corruption': settings['corruption'] or 'none',
        'severity': '–' if settings['severity'] is None else str(settings['severity']),
        'modalities': ' '.join(settings['modalities']),
        'flip': 'yes' if settings['flip'] else 'no',
        'scales': ' '.join(f'{scale:g}' for scale in settings['scales']),
    }
    shown = [(name, texts.get(name, str(value))) for name, value in settings.items()]
    return [*shown, ('written', f'{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}')]


def _versions() -> list[tuple[str, str]]:
    """Return the installed version of what the evaluation ran on."""
    return [
        ('Python', platform.python_version()),
        *((package, version_of(package)) for package in PACKAGES),
        ('OpenCV', cv2.__version__),
        ('system', platform.platform(terse=True)),
    ]
