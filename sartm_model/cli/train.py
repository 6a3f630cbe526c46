"""`sartm train`: train a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import Verbs, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'train',
        run,
        'Train a network. Every setting of the configuration can be overridden as key=value;\n'
        'an unknown key is an error. SIGTERM and Ctrl-C save the state after the current step;\n'
        'the same command with --resume continues as if it had not stopped.',
        'sartm train --config config/train/mfnet.yaml --out runs/mfnet\n'
        'sartm train --config config/train/mfnet.yaml --out runs/short steps=20000',
    )
    verb.add_argument('--config', metavar='FILE', type=Path, required=True, help='a YAML file')
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help="the run's folder")
    verb.add_argument(
        '--resume', action='store_true', help='continue the run in DIR from its last saved state'
    )
    verb.add_argument('overrides', metavar='key=value', nargs='*', help='override a setting')


def run(args: argparse.Namespace) -> None:
    """Train the network that the configuration describes."""
    from sartm_model.training.run import train

    train(args.config, args.out, args.overrides, resume=args.resume)
