"""Compare ways to start a training on few labelled thermal frames: SATIR's table, on any data set.

A network is trained on N labelled frames, thermal alone, and measured on others: from random
weights (none), from ImageNet's (imagenet), or after pretraining on pseudo-labels of thermal images
(satir, and imagenet-satir if that starts from ImageNet's weights). Nothing else differs. The number
of steps is fixed and the last weights are measured, so nothing is selected on the frames that are
measured. Each run weights the classes by the cube root of their inverse frequency in its own
training frames, because in short trainings rare classes are otherwise not learned at all.

    sartm pseudo-label --source graph --images recordings --out pseudo
    python -m benchmarks.satir_comparison --pseudo-labels pseudo/data.yaml --out comparison \\
        --dataset mfnet --root data/MFNet --frames 10 25 50 107 --seeds 1 2

The folder receives each run, comparison.json and comparison.md. The same command again continues
where it was stopped; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.training_runs import claim, class_weights, mean_and_range, train_whole
from sartm_model.data.base import FrameDataset
from sartm_model.data.registry import NAMES, open_dataset
from sartm_model.data.sources import FirstFrames
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.training.callbacks import LAST_MODEL
from sartm_model.utils.files import write_file

MODELS: dict[str, dict[str, Any]] = {
    'segformer-b0': {
        'model': {'name': 'segformer', 'size': 'b0', 'modalities': ['thermal']},
        'optim': {'lr': 6e-4},
    },
    'sartm-lite': {
        'model': {'size': 'lite', 'lora_rank': 8},
        'optim': {'lr': 1e-3},
        'loss': {'language': 0.0, 'prototype': 0.0},
    },
}
STARTS = ('none', 'imagenet', 'satir', 'imagenet-satir')
RESULT = 'result.json'
MEASURES = {'miou': 'mIoU', 'f_measure': 'F'}


class Run(NamedTuple):
    """A training on so many labelled frames."""

    model: str
    start: str
    labelled: int
    seed: int

    @property
    def name(self) -> str:
        """The folder of the run."""
        return f'{self.model}/{self.start}/frames_{self.labelled}/seed_{self.seed}'


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Do all runs that are not done yet; return the results and write both files."""
    claim(args.out, _settings(args))
    results = []
    for run in _runs(args):
        path = args.out / run.name / RESULT
        if not path.exists():
            write_file(path, json.dumps(_result(run, args), indent=2) + '\n')
        results.append({**run._asdict(), **json.loads(path.read_text())})
        print(f'{run.name}: mIoU {results[-1]["miou"]:.1f} %', flush=True)
    comparison = {'settings': _settings(args), 'runs': results}
    write_file(args.out / 'comparison.json', json.dumps(comparison, indent=2, default=str) + '\n')
    write_file(args.out / 'comparison.md', markdown(results))
    return comparison


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return a table of each model: the mean over the seeds, and the lowest and the highest."""
    lines = []
    for model in dict.fromkeys(result['model'] for result in results):
        of_model = [result for result in results if result['model'] == model]
        counts = sorted({result['labelled'] for result in of_model})
        titles = [f'{title} % ({count})' for count in counts for title in MEASURES.values()]
        lines += [f'{model}; in brackets the number of labelled frames', '']
        lines += [f'| pretraining | {" | ".join(titles)} |', '|' + '---|' * (len(titles) + 1)]
        for start in dict.fromkeys(result['start'] for result in of_model):
            cells = []
            for count, measure in itertools.product(counts, MEASURES):
                values = [
                    result[measure]
                    for result in of_model
                    if (result['start'], result['labelled']) == (start, count)
                ]
                cells.append(mean_and_range(values))
            lines.append(f'| {start} | {" | ".join(cells)} |')
        lines.append('')
    return '\n'.join(lines)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs in a folder must have in common."""
    names = (
        *('dataset', 'root', 'train_split', 'val_split', 'pseudo_labels', 'segformer_weights'),
        *('pretrain_steps', 'steps', 'batch_size', 'crop', 'val_frames'),
    )
    return {name: getattr(args, name) for name in names}


def _runs(args: argparse.Namespace) -> Iterator[Run]:
    for model, start, labelled, seed in itertools.product(
        args.models, args.starts, args.frames, args.seeds
    ):
        yield Run(model, start, labelled, seed)


def _result(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure; return the measures of `evaluate`."""
    source = {'dataset': args.dataset, 'root': str(args.root or '')}
    labelled = {
        **source, 'split': args.train_split, 'frames': run.labelled, 'frames_seed': run.seed
    }  # fmt: skip
    available = len(open_dataset(args.dataset, args.root, args.train_split))
    if run.labelled > available:
        raise SartmError(
            f'--frames {run.labelled}: {args.dataset} {args.train_split} has {available} frames'
        )
    config = {
        **_common(run.model, args, [labelled], {**source, 'split': args.val_split}),
        'loss': _loss(run.model, [_frames_of(labelled)]),
        'steps': args.steps,
        'seed': run.seed,
    }
    if run.start.endswith('satir'):
        config['start_from'] = str(_pretrained(run.model, run.start, args))
    elif run.start == 'imagenet':
        config['imagenet_weights'] = _imagenet_weights(run.model, args)
    checkpoint = train_whole(config, args.out / run.name)
    predictor = Predictor(checkpoint, device=args.device)

    def predict(frame: Any) -> FramePrediction:
        return FramePrediction(predictor.predict(frame.images).labels)

    dataset = open_dataset(args.dataset, args.root, args.val_split)
    if args.val_frames:
        dataset = FirstFrames(dataset, args.val_frames)
    return evaluate(predict, CorruptedDataset(dataset, modality='thermal'), f_measure=True)


def _pretrained(model: str, start: str, args: argparse.Namespace) -> Path:
    """Return the network that is pretrained on pseudo-labels; all runs with a start share it."""
    if not args.pseudo_labels:
        raise SartmError(f'--starts {start} needs --pseudo-labels')
    sources = [
        {'dataset': 'folder', 'root': str(path), 'split': 'train'} for path in args.pseudo_labels
    ]
    config = {
        **_common(model, args, sources, sources[0]),
        'loss': _loss(model, [_frames_of(source) for source in sources]),
        'stage': 'pretrain',
        'steps': args.pretrain_steps,
    }
    if start.startswith('imagenet'):
        config['imagenet_weights'] = _imagenet_weights(model, args)
    folder = args.out / model / start / 'pretrain'
    done = folder / 'done'
    if not done.exists():
        train_whole(config, folder)
        write_file(done, '')
    return folder / LAST_MODEL


def _frames_of(source: dict[str, Any]) -> FrameDataset:
    """Return the frames of a source of a training configuration."""
    dataset = open_dataset(source['dataset'], Path(source['root']), source['split'])
    if 'frames' not in source:
        return dataset
    return FirstFrames(dataset, source['frames'], source['frames_seed'])


def _loss(model: str, datasets: Sequence[FrameDataset]) -> dict[str, Any]:
    return {**MODELS[model].get('loss', {}), 'class_weights': class_weights(datasets)}


def _imagenet_weights(model: str, args: argparse.Namespace) -> str:
    return args.segformer_weights if model.startswith('segformer') else 'package'


def _common(
    model: str, args: argparse.Namespace, train_sources: list[dict], val_source: dict
) -> dict[str, Any]:
    """Return the settings of a training that all runs of a model share."""
    height, width = args.crop
    return {
        **MODELS[model],
        'data': {
            'train': train_sources,
            'val': {**val_source, 'frames': 1},  # a run must have one; it decides nothing
            'modality': 'thermal',
            'crop_height': height,
            'crop_width': width,
            'batch_size': args.batch_size,
            'workers': args.workers,
            'cache': True,
        },
        'val_every': args.save_every,
        'ema_decay': 0.99,
        'device': args.device,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.satir_comparison',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', metavar='DIR', type=Path, required=True)
    parser.add_argument('--dataset', choices=NAMES, required=True, help='the labelled frames')
    parser.add_argument('--root', metavar='PATH', type=Path, help='of the data set')
    parser.add_argument('--train-split', metavar='NAME', default='train')
    parser.add_argument('--val-split', metavar='NAME', default='val', help='is measured')
    parser.add_argument('--val-frames', metavar='N', type=int, default=0, help='of it (0: all)')
    parser.add_argument(
        '--pseudo-labels', metavar='FILE', type=Path, nargs='*', default=[],
        help='data.yaml of one or more results of sartm pseudo-label with equal settings',
    )  # fmt: skip
    parser.add_argument('--models', choices=MODELS, nargs='+', default=list(MODELS))
    parser.add_argument('--starts', choices=STARTS, nargs='+', default=['none', 'satir'])
    parser.add_argument('--frames', metavar='N', type=int, nargs='+', default=[10, 25, 50])
    parser.add_argument(
        '--seeds', metavar='N', type=int, nargs='+', default=[1, 2],
        help='of the labelled frames that are drawn, of the weights and of the samples',
    )  # fmt: skip
    parser.add_argument(
        '--segformer-weights', metavar='DIR', default='hub', help='of ImageNet (see satir.md)'
    )
    parser.add_argument('--pretrain-steps', metavar='N', type=int, default=1000)
    parser.add_argument('--steps', metavar='N', type=int, default=500, help='on labelled frames')
    parser.add_argument('--save-every', metavar='N', type=int, default=100, help='steps')
    parser.add_argument('--batch-size', metavar='N', type=int, default=8)
    parser.add_argument('--crop', metavar=('H', 'W'), type=int, nargs=2, default=[240, 320])
    parser.add_argument('--workers', metavar='N', type=int, default=1)
    parser.add_argument('--device', default='auto')
    args = parser.parse_args(argv)
    try:
        comparison = compare(args)
    except SartmError as error:
        print(f'satir_comparison: {error}', file=sys.stderr)
        return 2
    print(markdown(comparison['runs']))
    return 0


if __name__ == '__main__':
    sys.exit(main())
