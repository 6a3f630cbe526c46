"""`sartm pseudo-label`: label frames with a network, to train another one on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import (
    Verbs,
    add_dataset,
    add_model,
    add_scales,
    add_verb,
    open_predictor,
)
from sartm_model.errors import SartmError


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'pseudo-label',
        run,
        'Label frames with a network, to train another one on them. A pixel gets its most\n'
        'probable class where the probability, the mean over the images and their mirror images,\n'
        'is above a threshold, and 255, "not labelled", elsewhere. DIR/data.yaml declares the\n'
        'frames with these labels as a data set: {dataset: folder, root: DIR/data.yaml, split:\n'
        'train}. The images stay where they are. The frames need no labels.',
        'sartm pseudo-label --dataset folder --root unlabelled/data.yaml --split all\n'
        '                   --checkpoint my.safetensors --out pseudo_labels',
    )
    add_dataset(verb)
    verb.add_argument('--split', metavar='NAME', required=True, help='a split of the data set')
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help='a new folder')
    verb.add_argument(
        '--threshold',
        metavar='P',
        type=float,
        default=0.75,
        help='probability above which a class is kept (default: %(default)s)',
    )
    verb.add_argument(
        '--background-threshold',
        metavar='P',
        type=float,
        default=0.95,
        help='the same for the background class (default: %(default)s)',
    )
    add_scales(verb)
    add_model(verb)


def run(args: argparse.Namespace) -> None:
    """Write the labels and the YAML file, and print how many pixels were kept."""
    from sartm_model.data.folder import PairedFiles
    from sartm_model.data.registry import open_dataset
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.training.pseudo_labels import class_thresholds, write_pseudo_labels

    dataset = open_dataset(args.dataset, args.root, args.split)
    if not isinstance(dataset, PairedFiles):
        raise SartmError(f'{args.dataset} has no files; pseudo-labels need a data set on disk')
    predictor = open_predictor(args)
    if isinstance(predictor, OnnxPredictor):
        raise SartmError('an .onnx checkpoint gives no probabilities; give a .safetensors file')
    space = predictor.label_space
    thresholds = class_thresholds(space, args.threshold, args.background_threshold)
    counts = write_pseudo_labels(predictor, dataset, args.out, thresholds, args.scales)
    shares = 100 * counts / counts.sum()
    print(f'{len(dataset)} frames, {shares[: len(space)].sum():.1f} % of their pixels are kept:')
    for name, share in zip(space.classes, shares, strict=False):
        print(f'  {name:<24}{share:8.3f} %')
    print(f'written to {args.out}')
