"""Compare one SegRGB-X for five sensors with one for each, and with parts left out.

The frames are generated scenes, seen by RGB and each of five sensors in turn, and MFNet's frames if
their folder is given. The joint trainings have equal numbers of steps. The trainings for one sensor
have together as many, each those in which the joint one sees its frames. The last weights are
measured, on generated scenes of the split `val` and on MFNet's, so nothing is selected on them.
Classes are weighted by the cube root of their inverse frequency. MA-CLIP is trained first, on the
same frames.

    python -m benchmarks.segrgbx_comparison --out comparison --mfnet data/MFNet --clip openai

The folder receives the runs of each seed, comparison.json and comparison.md. The same command
again continues where it was stopped; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.training_runs import claim, class_weights, mean_and_range, train_whole
from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.data.registry import open_dataset
from sartm_model.data.sources import FirstFrames
from sartm_model.errors import SartmError
from sartm_model.evaluation.corruptions import CorruptedDataset
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.benchmark import generate_frames, measure_s
from sartm_model.inference.predictor import Predictor
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.segrgbx import Segrgbx
from sartm_model.models.summary import count_flops, count_parameters
from sartm_model.training.callbacks import LAST_MODEL
from sartm_model.training.run import train
from sartm_model.utils.files import write_file

SENSORS = ('thermal', 'depth', 'event', 'polarization', 'light_field')
RESULT = 'result.json'


class Run(NamedTuple):
    """A training.

    Attributes:
        name: of its folder, within that of its seed.
        seed: of the weights, the samples and MA-CLIP.
        sensors: beside RGB, that it is trained for.
        without: parts of the network that are left out.
        share: of the steps of a joint training.
    """

    name: str
    seed: int
    sensors: tuple[str, ...]
    without: tuple[str, ...] = ()
    share: float = 1.0


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Do all runs that are not done yet; return the results and write both files."""
    settings = _settings(args)
    claim(args.out, settings)
    results: dict[str, dict[str, Any]] = {}
    for seed in args.seeds:
        of_seed = results[f'seed_{seed}'] = {}
        for run in _runs(seed, args):
            path = _folder(run, args) / RESULT
            if not path.exists():
                write_file(path, json.dumps(_result(run, args), indent=2) + '\n')
            result = of_seed[run.name] = json.loads(path.read_text())
            print(f'{run.name}, seed {seed}: {_in_words(result["miou"])}', flush=True)
    comparison = {'settings': settings, 'runs': results, 'cost': _costs(args)}
    write_file(args.out / 'comparison.json', json.dumps(comparison, indent=2, default=str) + '\n')
    write_file(args.out / 'comparison.md', markdown(comparison))
    return comparison


def markdown(comparison: dict[str, Any]) -> str:
    """Return a table of accuracy, means over the seeds, and one of cost."""
    by_seed = list(comparison['runs'].values())
    columns = list(by_seed[0]['joint']['miou'])
    rows = [_rows(runs, columns) for runs in by_seed]
    lines = ['mIoU in %', '', f'| network | {" | ".join(columns)} | mean |']
    lines.append('|' + '---|' * (len(columns) + 2))
    for title in rows[0]:
        values = np.array([of_seed[title] for of_seed in rows])  # [seeds, columns]
        cells = [f'{value:.1f}' for value in values.mean(axis=0)]
        cells.append(mean_and_range(values.mean(axis=1)))
        lines.append(f'| {title} | {" | ".join(cells)} |')
    lines += ['', '| network | parameters, M | GFLOP | ms |', '|---|---|---|---|']
    for name, of_one in comparison['cost'].items():
        lines.append(
            f'| {name} | {of_one["parameters"] / 1e6:.1f} | {of_one["gflop"]:.1f} | '
            f'{of_one["ms"]:.0f} |'
        )
    return '\n'.join(lines) + '\n'


def _rows(runs: dict[str, dict[str, Any]], columns: Sequence[str]) -> dict[str, list[float]]:
    """Return title -> mIoU of each column, of the runs of one seed."""
    joint = runs['joint']['miou']
    separate = {
        column: runs[f'separate/{"thermal" if column == "mfnet" else column}']['miou'][column]
        for column in columns
    }
    rows = {'one network for each sensor': (separate, 'both'), 'one for all': (joint, 'both')}
    for name, result in runs.items():
        if name.startswith('joint/'):
            rows[f'one for all, {name.removeprefix("joint/")}'] = (result['miou'], 'both')
    for title, images in (('RGB alone', 'rgb'), ('X alone', 'x')):
        rows[f'one network for each sensor, given {title}'] = (separate, images)
        rows[f'one for all, given {title}'] = (joint, images)
    return {
        title: [miou[column][images] for column in columns]
        for title, (miou, images) in rows.items()
    }


def _in_words(miou: dict[str, dict[str, float]]) -> str:
    return ', '.join(f'{name} {values["both"]:.1f} %' for name, values in miou.items())


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs in a folder must have in common."""
    names = [
        *('sensors', 'mfnet', 'clip', 'clip_model', 'clip_steps'),
        *('steps', 'batch_size', 'crop', 'frames', 'val_frames'),
    ]
    return {name: getattr(args, name) for name in names}


def _runs(seed: int, args: argparse.Namespace) -> Iterator[Run]:
    sensors = tuple(args.sensors)
    yield Run('joint', seed, sensors)
    for part in Segrgbx.PARTS:
        if part != 'ma_clip' or args.clip:
            yield Run(f'joint/without_{part}', seed, sensors, (part,))
    sources = _sources(sensors, args)
    for sensor in sensors:
        share = sum(sensor in source['modalities'] for source in sources) / len(sources)
        yield Run(f'separate/{sensor}', seed, (sensor,), share=share)


def _folder(run: Run, args: argparse.Namespace) -> Path:
    return args.out / f'seed_{run.seed}' / run.name


def _sources(sensors: Sequence[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the sources of training frames; each has the same weight."""
    generated = {'dataset': 'synthetic', 'split': 'train', 'frames': args.frames}
    sources = [{**generated, 'modalities': ['rgb', sensor]} for sensor in sensors]
    if args.mfnet and 'thermal' in sensors:
        real = {'dataset': 'mfnet', 'root': str(args.mfnet), 'split': 'train'}
        sources.append({**real, 'modalities': ['rgb', 'thermal']})
    return sources


def _result(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure."""
    height, width = args.crop
    steps = max(1, round(args.steps * run.share))
    sources = _sources(run.sensors, args)
    config = {
        'model': {
            'name': 'segrgbx',
            'size': 'b0',
            'modalities': ['rgb', *run.sensors],
            'input_scale': 0.5,
            'without': list(run.without),
        },
        'data': {
            'train': sources,
            'val': {**sources[0], 'split': 'val', 'frames': 1},  # it decides nothing
            'crop_height': height,
            'crop_width': width,
            'scale_min': 0.35,
            'scale_max': 0.8,
            'batch_size': args.batch_size,
            'workers': args.workers,
            'cache': True,
        },
        'steps': steps,
        'val_every': steps,
        'ema_decay': 0.99,
        'loss': {'class_weights': class_weights([_scenes('train', args.sensors[0], args.frames)])},
        'seed': run.seed,
        'device': args.device,
        'optim': {'lr': 6e-4},
        'ma_clip': _ma_clip(run.seed, args) if args.clip else {},
    }
    predictor = Predictor(train_whole(config, _folder(run, args)), device=args.device)

    def predict(frame: Frame) -> FramePrediction:
        return FramePrediction(predictor.predict(frame.images).labels)

    miou = {}
    for name, sensor, dataset in _measured(run.sensors, args):
        pairs = {'both': f'rgb,{sensor}'}
        if not run.without:
            pairs |= {'rgb': 'rgb', 'x': sensor}
        miou[name] = {
            images: evaluate(predict, CorruptedDataset(dataset, modality=modality))['miou']
            for images, modality in pairs.items()
        }
    return {'steps': steps, 'miou': miou}


def _ma_clip(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train MA-CLIP for all sensors, if it is not there yet; return its settings for a network."""
    clip = {'model': args.clip_model, 'pretrained': args.clip}
    folder = args.out / f'seed_{seed}' / 'ma_clip'
    adapters = folder / 'ma_clip.safetensors'
    if not adapters.exists():
        sources = _sources(args.sensors, args)
        val, *more_val = [{**source, 'split': 'val', 'frames': 4} for source in sources]
        data = {'train': sources, 'val': val, 'more_val': more_val, 'cache': True}
        config = {
            'stage': 'ma_clip',
            'model': {'name': 'segrgbx', 'size': 'b0', 'modalities': ['rgb', *args.sensors]},
            'ma_clip': clip,
            'data': {**data, 'batch_size': 16, 'workers': args.workers},
            'steps': args.clip_steps,
            'val_every': args.clip_steps,
            'seed': seed,
            'device': args.device,
            'optim': {'lr': 1e-3},
        }
        path = folder / 'train.yaml'
        write_file(path, yaml.safe_dump(config, sort_keys=False))
        train(path, folder)
    return {**clip, 'adapters': str(adapters)}


def _measured(
    sensors: Sequence[str], args: argparse.Namespace
) -> Iterator[tuple[str, str, FrameDataset]]:
    """Yield name, sensor and frames of each data set on which a network is measured."""
    for sensor in sensors:
        yield sensor, sensor, _scenes('val', sensor, args.val_frames)
    if args.mfnet and 'thermal' in sensors:
        yield 'mfnet', 'thermal', open_dataset('mfnet', args.mfnet, 'val')


def _scenes(split: str, sensor: str, count: int) -> FrameDataset:
    scenes = open_dataset('synthetic', None, split).with_modalities(('rgb', sensor))
    return FirstFrames(scenes, count)


def _costs(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return parameters, operations and time of the networks for a pair of 480x640 pixels.

    The pair is RGB and the first sensor; the networks are those of the first seed. They take turns,
    so that a change of the machine's speed concerns all of them.
    """
    paths = {
        run.name: _folder(run, args) / LAST_MODEL
        for run in _runs(args.seeds[0], args)
        if run.name.startswith('joint') or run.sensors == (args.sensors[0],)
    }
    predictors = {name: Predictor(path, device=args.device) for name, path in paths.items()}
    pair = ('rgb', args.sensors[0])
    [images] = generate_frames(480, 640, pair)
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(args.repeats):
        for name, predictor in predictors.items():
            seconds[name].append(measure_s(lambda p=predictor: p.predict(images)))  # type: ignore[misc]
    costs = {}
    for name, path in paths.items():
        loaded = checkpoints.load(path)
        costs[name] = {
            'parameters': count_parameters(checkpoints.build(loaded, merged=False))['total'],
            'gflop': count_flops(checkpoints.build(loaded), 480, 640, pair) / 1e9,
            'ms': 1e3 * median(seconds[name][1:]),
        }
    return costs


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print the tables; return the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.segrgbx_comparison',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', metavar='DIR', type=Path, required=True)
    parser.add_argument('--sensors', choices=SENSORS, nargs='+', default=list(SENSORS))
    parser.add_argument('--mfnet', metavar='DIR', type=Path, help='its 107 frames of train.txt')
    parser.add_argument(
        '--clip', metavar='W', default='',
        help="with MA-CLIP, from these weights: a tag of open_clip, a file, or 'random'",
    )  # fmt: skip
    parser.add_argument('--clip-model', metavar='NAME', default='ViT-B-32', help='of open_clip')
    parser.add_argument('--clip-steps', metavar='N', type=int, default=500, help='of MA-CLIP')
    parser.add_argument('--steps', metavar='N', type=int, default=600, help='of a joint training')
    parser.add_argument('--frames', metavar='N', type=int, default=200, help='generated, a sensor')
    parser.add_argument('--val-frames', metavar='N', type=int, default=40, help='the same')
    parser.add_argument('--batch-size', metavar='N', type=int, default=4)
    parser.add_argument('--crop', metavar=('H', 'W'), type=int, nargs=2, default=[160, 224])
    parser.add_argument('--seeds', metavar='N', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--repeats', metavar='N', type=int, default=11, help='of a timed pair')
    parser.add_argument('--workers', metavar='N', type=int, default=1)
    parser.add_argument('--device', default='auto')
    args = parser.parse_args(argv)
    try:
        comparison = compare(args)
    except SartmError as error:
        print(f'segrgbx_comparison: {error}', file=sys.stderr)
        return 2
    print(markdown(comparison))
    return 0


if __name__ == '__main__':
    sys.exit(main())
