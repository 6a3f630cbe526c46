"""`sartm data`: check a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sartm_model.cli.options import Verbs, add_dataset, add_verb
from sartm_model.utils.files import write_file


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'data',
        run,
        'Check a data set. Reads every frame, names every fault (the file and what is wrong) and\n'
        'summarises the contents; warns of what is suspicious, such as an image in train and val.\n'
        'The exit status is 1 if there are faults, 0 if there are none (warnings or not).',
        'sartm data check --dataset mfnet --root MFNet\n'
        'sartm data check --dataset fmb --root FMB --split train --json fmb.json',
    )
    verb.add_argument('action', choices=('check',), help='what to do with the data set')
    add_dataset(verb)
    verb.add_argument(
        '--split', metavar='NAME', help='train, val or test (MFNet: NAME.txt); default: all'
    )
    verb.add_argument(
        '--json', metavar='FILE', type=Path, help='also write everything found to this file'
    )


def run(args: argparse.Namespace) -> int:
    """Print the faults of a data set; return 1 if there are any."""
    from sartm_model.data.validation import check
    from sartm_model.data.validation_report import summary

    report = check(args.dataset, args.root, args.split)
    print(summary(report))
    if args.json is not None:
        write_file(args.json, json.dumps(report.to_dict(), indent=2) + '\n')
        print(f'written to {args.json}')
    return 1 if report.faults else 0
