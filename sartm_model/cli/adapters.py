"""`sartm adapters`: take published weights out of a checkpoint, or put them back."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import Verbs, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'adapters',
        run,
        "Take SAM2's weights out of a checkpoint, or put them back. What remains without them is\n"
        'what training added: adapters, fusion and heads. They are put back from the official\n'
        'file of SAM2 that the training started from, given by --sam2.\n'
        'From a segrgbx network with MA-CLIP the image tower is removed; the result is a\n'
        'checkpoint that uses the mean embedding of each modality, see docs/segrgbx.md.',
        'sartm adapters runs/mfnet/best.safetensors --out adapters.safetensors\n'
        'sartm adapters adapters.safetensors --sam2 sam2.1_hiera_tiny.pt --out model.safetensors',
    )
    verb.add_argument('file', metavar='F', type=Path, help='a checkpoint; with --sam2: adapters')
    verb.add_argument('--sam2', metavar='PT', type=Path, help="SAM2's official .pt, to put in")
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='where to write')


def run(args: argparse.Namespace) -> None:
    """Write the checkpoint without, or with, the weights of SAM2, or without MA-CLIP's tower."""
    from sartm_model.models import checkpoint as checkpoints
    from sartm_model.models.sartm.adapters import apply, extract

    if args.sam2 is not None:
        apply(args.file, args.sam2, args.out)
    elif (loaded := checkpoints.load(args.file)).config.name == 'segrgbx':
        from sartm_model.models.segrgbx.ma_clip_means import without_tower

        without_tower(loaded, args.out)
    else:
        extract(args.file, args.out)
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')
