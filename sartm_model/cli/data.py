"""`sartm data`: check a data set, or declare one of your own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sartm_model.cli.options import Verbs, add_dataset, add_verb, not_negative
from sartm_model.utils.files import write_file
from sartm_model.utils.text import format_names


def add_parser(verbs: Verbs) -> None:
    """Add the verb with its two actions."""
    verb = add_verb(
        verbs,
        'data',
        run_check,
        'Check a data set, or declare one of your own. For the options: sartm data check --help\n'
        'and sartm data init --help.',
        'sartm data check --dataset mfnet --root MFNet\n'
        'sartm data init my_frames',
    )  # fmt: skip
    actions = verb.add_subparsers(dest='action', required=True, metavar='ACTION')
    _add_check(actions)
    _add_init(actions)


def _add_check(actions: Verbs) -> None:
    verb = add_verb(
        actions,
        'check',
        run_check,
        'Find every fault of a data set. Reads every frame, names every fault (the file and what\n'
        'is wrong) and summarises the contents; warns of what is suspicious, such as an image in\n'
        'train and val. The exit status is 2 if there are faults, 0 if there are none (warnings\n'
        'or not).',
        'sartm data check --dataset mfnet --root MFNet\n'
        'sartm data check --dataset fmb --root FMB --split train --json fmb.json\n'
        'sartm data check --dataset folder --root my_frames/data.yaml',
    )
    add_dataset(verb)
    verb.add_argument(
        '--split',
        metavar='NAME',
        help='train, val or test, as far as the data set has them (mfnet: NAME.txt; folder: '
        'a split of its file); default: all',
    )
    verb.add_argument(
        '--json', metavar='FILE', type=Path, help='also write everything found to this file'
    )


def _add_init(actions: Verbs) -> None:
    verb = add_verb(
        actions,
        'init',
        run_init,
        'Write the YAML file that declares your own frames and classes. Looks into the folders of\n'
        'RGB images, thermal images and masks in DIR, and writes data.yaml, with the values that\n'
        'occur in the masks, and train.txt and val.txt, with 80 and 20 % of the frames drawn at\n'
        'random (all.txt where there are no masks; no list for frames in folders such as train\n'
        'and val). Correct data.yaml, then use it by --dataset folder --root DIR/data.yaml.\n'
        'Nothing is overwritten.',
        'sartm data init my_frames',
    )
    verb.add_argument('folder', metavar='DIR', type=Path, help='the folder of the images')
    verb.add_argument(
        '--seed',
        type=not_negative,
        default=0,
        help='of the random split (default: %(default)s)',
    )


def run_check(args: argparse.Namespace) -> int:
    """Print the faults of a data set; return 2 if there are any."""
    from sartm_model.data.validation import check
    from sartm_model.data.validation_report import summary

    report = check(args.dataset, args.root, args.split)
    print(summary(report))
    if args.json is not None:
        write_file(args.json, json.dumps(report.to_dict(), indent=2) + '\n')
        print(f'written to {args.json}')
    return 2 if report.faults else 0


def run_init(args: argparse.Namespace) -> None:
    """Write the YAML file of a data set and print what was found."""
    from sartm_model.data.declaration_draft import write_draft

    draft = write_draft(args.folder, args.seed)
    for part, folder in draft.folders.items():
        print(f'{part}: {folder}')
    has_masks = 'labels' in draft.folders
    contents = f'{draft.values} different values in their masks' if has_masks else 'no masks'
    print(f'{draft.frames} frames, {contents}')
    if draft.unused:
        print(f'folders that are not used: {", ".join(draft.unused)}')
    if draft.incomplete:
        print(f'without a file of every part: {format_names(draft.incomplete)}')
    then = 'give the classes their names in it' if has_masks else 'sartm pseudo-label labels them'
    print(f'written: {draft.path}; {then}')
