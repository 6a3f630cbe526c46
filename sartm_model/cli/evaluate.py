"""`sartm evaluate`: measure a checkpoint on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sartm_model.cli.options import (
    Verbs,
    add_dataset,
    add_json,
    add_modality,
    add_model,
    add_scales,
    add_verb,
    open_for_dataset,
)
from sartm_model.cli.output import check_report_folder, emit_json
from sartm_model.errors import SartmError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sartm_model.data.frame import Frame
    from sartm_model.evaluation.evaluate import FramePrediction
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.inference.predictor import Predictor


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'evaluate',
        run,
        'Measure a checkpoint on a data set. Gives IoU, boundary F1 and calibration error in\n'
        'percent, as JSON, also by condition, such as day and night, if the data set says which.',
        'sartm evaluate --dataset synthetic --split test --report report\n'
        'sartm evaluate --checkpoint my.safetensors --dataset mfnet --root MFNet --split val\n'
        '               --modality thermal --json val.json\n'
        'sartm evaluate --checkpoint my.safetensors --dataset folder --root my_frames/data.yaml\n'
        '               --split val\n'
        'sartm evaluate --checkpoint satir.safetensors --dataset soda --root SODA --split test\n'
        '               --f-measure --report report\n'
        'sartm evaluate --dataset synthetic --split val --corruption thermal_shift --severity 3\n'
        'sartm evaluate --dataset synthetic --split val --flip --scales 0.75 1 1.25 --head mask',
    )
    add_dataset(verb)
    verb.add_argument(
        '--split',
        metavar='NAME',
        required=True,
        help='train, val or test, as far as the data set has them (mfnet: NAME.txt; folder: '
        'a split of its file)',
    )
    add_modality(verb)
    verb.add_argument(
        '--corruption',
        metavar='NAME',
        help='corrupt the images of one modality, the same way in every run: its name and the '
        "fault's, such as rgb_dark, thermal_noise or depth_holes; another name lists all",
    )
    verb.add_argument(
        '--severity', type=int, choices=range(1, 6), help='of the corruption, from 1 to 5'
    )
    verb.add_argument(
        '--head',
        metavar='NAME',
        help='the mean of all heads, or one alone: mask or auxiliary of sartm (default: the '
        "checkpoint's setting)",
    )
    verb.add_argument(
        '--flip', action='store_true', help='average with the prediction of the mirrored images'
    )
    add_scales(verb)
    verb.add_argument(
        '--f-measure',
        action='store_true',
        help='also the weighted F-measure of Margolin et al., which takes longer than all others',
    )
    verb.add_argument('--report', metavar='DIR', type=Path, help='write report.html to this folder')
    add_json(verb)
    add_model(verb)


def run(args: argparse.Namespace) -> None:
    """Print the metrics of a checkpoint on a split, and write the report."""
    from sartm_model.data.registry import open_dataset
    from sartm_model.evaluation.corruptions import CorruptedDataset
    from sartm_model.evaluation.evaluate import evaluate
    from sartm_model.modalities import check_selection, select

    if args.report is not None:
        check_report_folder(args.report)
    dataset = CorruptedDataset(
        open_dataset(args.dataset, args.root, args.split),
        modality=args.modality,
        corruption=args.corruption,
        severity=args.severity,
    )
    predictor = open_for_dataset(args, dataset)
    check_selection(
        args.modality, predictor.modalities, f'checkpoint {args.checkpoint} has no modality'
    )
    dataset = dataset.with_modalities(select(args.modality, predictor.modalities))
    predict = _frame_predictor(predictor, args.flip, args.scales)
    given: set[str] = set()

    def predict_noted(frame: Frame) -> FramePrediction:
        given.update(frame.select(predictor.modalities))
        return predict(frame)

    metrics = evaluate(predict_noted, dataset, f_measure=args.f_measure)
    named = ('checkpoint', 'dataset', 'split', 'modality', 'corruption', 'severity')
    settings = {
        **{name: getattr(args, name) for name in named},
        'root': None if args.root is None else str(args.root),
        'modalities': [name for name in predictor.modalities if name in given],
        'head': predictor.head,
        'flip': args.flip,
        'scales': args.scales,
        'device': str(predictor.device),
        'precision': predictor.precision,
    }
    result = {**metrics, 'settings': settings}
    emit_json(result, args.json)
    if args.report is not None:
        from sartm_model.evaluation.report.report import write_report

        write_report(args.report, result, dataset, predict)


def _frame_predictor(
    predictor: Predictor | OnnxPredictor, flip: bool, scales: Sequence[float]
) -> Callable[[Frame], FramePrediction]:
    """Return a function that predicts a frame. Raises SartmError if the settings do not fit."""
    import numpy as np

    from sartm_model.evaluation.evaluate import FramePrediction
    from sartm_model.inference.onnx_predictor import OnnxPredictor

    if isinstance(predictor, OnnxPredictor):
        if flip or scales != [1.0]:
            raise SartmError(
                'an .onnx checkpoint gives no probabilities; leave --flip and --scales out'
            )

        def predict_exported(frame: Frame) -> FramePrediction:
            prediction = predictor.predict(frame.select(predictor.modalities), confidence=True)
            assert prediction.confidence is not None
            return FramePrediction(prediction.labels, prediction.confidence / np.float32(255))

        return predict_exported

    # Imports torch, which an .onnx checkpoint does not need.
    from sartm_model.evaluation.multi_scale_flip import check_scales, probabilities
    from sartm_model.models.logits import labels_and_confidence

    check_scales(scales)

    def predict(frame: Frame) -> FramePrediction:
        found = probabilities(
            predictor, frame.select(predictor.modalities), flip=flip, scales=scales
        )
        labels, confidence = labels_and_confidence(found)
        return FramePrediction(labels.cpu().numpy(), confidence.cpu().numpy())

    return predict
