"""Train the same run with a part taken away, with several seeds, and measure each.

On MFNet's `val` to be reported, and on generated scenes of `val` to choose by: what is chosen on
the real frames cannot be measured on them any more.

    python -m sartm_model.training.ablation --config config/train/ablation.yaml \
        --out runs/ablation --mfnet MFNET --seeds 0 1

Leaves a folder a run and `table.md`, the mean over the seeds of each variant. A run that is there
already is not trained again, and one that was stopped is resumed, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model import checkpoint as checkpoints
from sartm_model.config import load_train_config
from sartm_model.datasets import open_dataset
from sartm_model.datasets.base import Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import evaluate
from sartm_model.files import write_file
from sartm_model.predictor import Predictor
from sartm_model.training.callbacks import STATE

VARIANTS = {
    'full': [],
    'without language': ['loss.language=0'],
    'without prototypes': ['loss.prototype=0'],
    'without language and prototypes': ['loss.language=0', 'loss.prototype=0'],
    'without auxiliary head': ['loss.auxiliary=0', 'model.prediction=mask'],
    'RGB only': ['data.modality=rgb', 'data.drop_modality=0'],
    'thermal only': ['data.modality=thermal', 'data.drop_modality=0'],
    'preset paper': ['loss.preset=paper'],
}
"""Name -> overrides of the configuration: rows of the paper's tables V and VI, and the presets."""

GENERATED = 40
"""Scenes to choose by."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--mfnet', type=Path, required=True, help='MFNet folder with val.txt')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args(argv)
    try:
        found: dict[str, list[dict[str, Any]]] = {}
        # By seeds first: stopped half-way there is still a whole table.
        for seed in args.seeds:
            for name in args.variants:
                figures = run(args.config, args.out, args.mfnet, name, seed)
                found.setdefault(name, []).append(figures)
                write_file(args.out / 'table.md', table(found))
    except (SartmError, subprocess.CalledProcessError) as error:
        print(f'ablation: error: {error}', file=sys.stderr)
        return 2
    print((args.out / 'table.md').read_text())
    return 0


def run(config: Path, out: Path, mfnet: Path, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant where that is not done, and measure it.

    Returns the figures of MFNet's `val`, and under 'generated' those of the generated one.
    """
    folder = out / f'{variant.replace(" ", "_")}_{seed}'
    figures = folder / 'val.json'
    if figures.is_file():
        return json.loads(figures.read_text())
    overrides = [*VARIANTS[variant], f'seed={seed}']
    settings = load_train_config(config, overrides)
    last = folder / 'last.safetensors'
    if not last.is_file() or checkpoints.load(last).card['steps'] < settings.steps:
        command = [sys.executable, '-m', 'sartm_model.cli', 'train', '--config', str(config)]
        resume = ['--resume'] if (folder / STATE).is_file() else []
        # A process each: what one run sets up, another does not inherit.
        subprocess.run([*command, '--out', str(folder), *resume, *overrides], check=True)
    predictor = Predictor(last)
    modality = settings.data.modality

    def labels_of(frame: Frame) -> np.ndarray:
        rgb = None if modality == 'thermal' else frame.rgb
        thermal = None if modality == 'rgb' else frame.thermal
        return predictor.predict(rgb, thermal).labels

    result = evaluate(labels_of, open_dataset('mfnet', mfnet, 'val'))
    generated = open_dataset('synthetic', None, 'val')
    generated.names = generated.names[:GENERATED]
    result['generated'] = evaluate(labels_of, generated)
    write_file(figures, json.dumps(result))
    return result


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: a row a variant with the mean over its seeds, in percent, and each seed's mIoU.

    All but 'generated' is of MFNet's `val`.
    """
    classes = list(next(iter(found.values()))[0]['per_class_iou'])
    head = ['variant', 'generated', 'each seed', 'mIoU', 'each seed', 'day', 'night', *classes]
    lines = [f'| {" | ".join(head)} |', f'|{"---|" * len(head)}']
    for name, results in found.items():
        cells = []
        for measured in ([result['generated'] for result in results], results):
            mious = [result['miou'] for result in measured]
            cells += [f'{np.mean(mious):.1f}', ' '.join(f'{miou:.1f}' for miou in mious)]
        for light in ('day', 'night'):
            cells.append(f'{np.mean([result[light]["miou"] for result in results]):.1f}')
        for label in classes:
            iou = [result['per_class_iou'][label] or 0.0 for result in results]
            cells.append(f'{np.mean(iou):.1f}')
        lines.append(f'| {" | ".join([name, *cells])} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
