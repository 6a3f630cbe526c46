"""`sartm calibrate`: make the confidence of a checkpoint say how often it is right."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import (
    MODEL_DEFAULTS,
    Verbs,
    add_dataset,
    add_verb,
    open_for_dataset,
)
from sartm_model.errors import SartmError


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'calibrate',
        run,
        'Make the confidence of a checkpoint say how often it is right. Divides its logits by a\n'
        'temperature, which is fitted to labelled frames that the network was not trained on.\n'
        'The labels stay the same but for a few pixels on which the heads disagree.',
        'sartm calibrate --checkpoint runs/my_frames/best.safetensors --dataset folder\n'
        '                --root my_frames/data.yaml --split val --out my.safetensors',
    )
    verb.set_defaults(**MODEL_DEFAULTS)
    verb.add_argument('--checkpoint', metavar='F', required=True, help='a .safetensors checkpoint')
    add_dataset(verb)
    verb.add_argument('--split', metavar='NAME', required=True, help='the frames to fit it to')
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='where to write')


def run(args: argparse.Namespace) -> None:
    """Write the calibrated checkpoint, and print the temperature and the calibration error."""
    from sartm_model.data.registry import open_dataset
    from sartm_model.evaluation.temperature import fit_temperature, with_temperature
    from sartm_model.inference.predictor import Predictor
    from sartm_model.models import checkpoint as checkpoints

    dataset = open_dataset(args.dataset, args.root, args.split)
    predictor = open_for_dataset(args, dataset)
    if not isinstance(predictor, Predictor):
        raise SartmError(
            f'{args.checkpoint} is exported; calibrate the checkpoint it was made from, and export '
            'that again'
        )
    loaded = checkpoints.load(args.checkpoint)
    fit = fit_temperature(predictor, dataset.with_modalities(predictor.modalities))
    changed = with_temperature(loaded, fit.temperature)
    checkpoints.write(
        args.out,
        checkpoints.KIND,
        changed.config,
        changed.label_space,
        changed.card,
        changed.state,
    )
    print(
        f'{args.out}: temperature {fit.temperature:.3f}, calibration error on these frames '
        f'{fit.ece_before:.1f} % before, {fit.ece_after:.1f} % after'
    )
