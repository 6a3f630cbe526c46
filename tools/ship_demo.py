"""Make a trained checkpoint the shipped one: measure it and write its model card.

    python -m tools.ship_demo runs/demo/last.safetensors --mfnet MFNET

The weights stay as they are; the card gets the data and their terms, the command and the figures.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import LABEL_SPACES
from sartm_model.models import checkpoint as checkpoints

COMMAND = 'sartm train --config config/train/demo.yaml --out runs/demo'
DATA = [
    {
        'name': 'MFNet, 107 frames of its official training split',
        'terms': 'published for research by its authors (Ha et al., IROS 2017); check their terms '
        'before any other use. No frame is part of this file.',
    },
    {
        'name': 'scenes drawn by sartm_model.data.synthetic',
        'terms': 'part of this project, Apache-2.0',
    },
]
INTENDED_USE = (
    'to show and to test the software. Not for a vehicle: it is small, was trained from random '
    'weights on few frames, and misses objects.'
)


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help='what sartm train left')
    parser.add_argument('--mfnet', type=Path, required=True, help='MFNet folder with val.txt')
    parser.add_argument('--out', type=Path, default=checkpoints.resolve('demo'))
    args = parser.parse_args(argv)
    try:
        ship(args.checkpoint, args.mfnet, args.out)
    except SartmError as error:
        print(f'ship: error: {error}', file=sys.stderr)
        return 2
    return 0


def ship(source: Path, mfnet: Path, out: Path) -> None:
    """Write `source` to `out` with a model card; `mfnet` is a folder with `val.txt`."""
    loaded = checkpoints.load(source)
    predictor = Predictor(source)
    both = _predict_with(predictor, rgb=True, thermal=True)
    val = open_dataset('mfnet', mfnet, 'val')
    figures = {
        'generated scenes, test': _short(evaluate(both, open_dataset('synthetic', None, 'test'))),
        'MFNet, 50 frames of its validation split': _short(evaluate(both, val)),
        'the same, RGB only': _short(
            evaluate(_predict_with(predictor, rgb=True, thermal=False), val)
        ),
        'the same, thermal only': _short(
            evaluate(_predict_with(predictor, rgb=False, thermal=True), val)
        ),
    }
    card = {
        'intended_use': INTENDED_USE,
        'data': DATA,
        'command': COMMAND,
        'figures_percent': figures,
        'measured': f'{datetime.date.today()} on {predictor.device} in {predictor.precision}',
        **loaded.card,
    }
    space = LABEL_SPACES.get(loaded.label_space.name, loaded.label_space)
    checkpoints.save(out, checkpoints.build(loaded, merged=False), space, card)


def _predict_with(
    predictor: Predictor, *, rgb: bool, thermal: bool
) -> Callable[[Frame], FramePrediction]:
    def predict(frame: Frame) -> FramePrediction:
        images = (frame.rgb if rgb else None, frame.thermal if thermal else None)
        return FramePrediction(predictor.predict(*images).labels)

    return predict


def _short(result: dict[str, Any]) -> dict[str, Any]:
    """What a card says of an evaluation: means, classes, and the mIoU by day and by night."""
    keys = ('frames', 'miou', 'miou_present', 'pixel_accuracy', 'per_class_iou')
    short = {key: result[key] for key in keys}
    return short | {light: result[light]['miou'] for light in ('day', 'night') if light in result}


if __name__ == '__main__':
    sys.exit(main())
