"""`sartm download`: fetch the official weights of SAM2."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import Verbs, add_verb
from sartm_model.models.sam2_download import SAM2_FILES


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'download',
        run,
        "Fetch SAM2's official weights. The revision is pinned and the sha256 is checked; a file\n"
        'that is there already is only checked.',
        'sartm download sam2 --size tiny\n'
        'sartm download sam2 --size large --version sam2 --out /data/weights',
    )
    versions, sizes = (tuple(dict.fromkeys(part)) for part in zip(*SAM2_FILES, strict=True))
    verb.add_argument('what', choices=('sam2',), help='the weights to fetch')
    verb.add_argument('--size', choices=sizes, required=True, help='of the encoder')
    verb.add_argument('--version', choices=versions, default='sam2.1', help='default: %(default)s')
    verb.add_argument(
        '--out',
        metavar='DIR',
        type=Path,
        default=Path('weights'),
        help='the folder to put the file in (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> None:
    """Fetch the weights and print how to train with them."""
    from sartm_model.models.sam2_download import download_sam2

    path = download_sam2(args.size, args.out, args.version)
    print(f'{path}  sha256 {SAM2_FILES[args.version, args.size].sha256}')
    print(f'train with: model.size={args.size} sam2_weights={path}')
