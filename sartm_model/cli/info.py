"""`sartm info`: describe a checkpoint."""

from __future__ import annotations

import argparse

from sartm_model.cli.options import Verbs, add_size, add_verb
from sartm_model.cli.output import emit_json


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'info',
        run,
        'Describe a checkpoint as JSON. Gives its configuration, labels, bytes, numbers of\n'
        'parameters, floating point operations a pair and the model card.',
        'sartm info demo\nsartm info runs/long/best.safetensors --height 720 --width 1280',
    )
    verb.add_argument(
        'checkpoint', metavar='F', help='a .safetensors checkpoint, demo or demo_depth'
    )
    add_size(verb, 'the pair whose operations are counted')


def run(args: argparse.Namespace) -> None:
    """Print the description."""
    from sartm_model.models.summary import describe

    emit_json(describe(args.checkpoint, args.height, args.width), None)
