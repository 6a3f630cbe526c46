"""`sartm predict`: segment images."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import Verbs, add_homography, add_model, add_verb, open_predictor
from sartm_model.errors import SartmError


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'predict',
        run,
        'Segment images. Writes STEM_labels.png (class ids) and STEM_overlay.png at the size of\n'
        'the RGB image, or of the thermal image if there is no RGB. In folders, files of the\n'
        'same stem belong together. One of --rgb and --thermal may be left out.',
        'sartm predict --rgb night/rgb --thermal night/thermal --out labels\n'
        'sartm predict --checkpoint my.safetensors --thermal hall.png --out labels',
    )
    verb.add_argument('--rgb', metavar='P', type=Path, help='an RGB image or a folder of them')
    verb.add_argument('--thermal', metavar='P', type=Path, help='a thermal image, or a folder')
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help='where to write')
    add_homography(verb)
    add_model(verb)


def run(args: argparse.Namespace) -> None:
    """Write the labels and the overlay of each image."""
    if args.rgb is None and args.thermal is None:
        raise SartmError('neither --rgb nor --thermal is given; give at least one of them')
    from tqdm import tqdm

    from sartm_model.data.folder import FolderPairs
    from sartm_model.utils.files import write_file
    from sartm_model.utils.visualization import encode

    frames = FolderPairs({'rgb': args.rgb, 'thermal': args.thermal})
    predictor = open_predictor(args)
    for frame in tqdm(frames, total=len(frames), unit='frame', disable=None):
        prediction = predictor.predict(frame.images, overlay=True)
        assert prediction.overlay is not None
        labels, overlay = encode(prediction.labels), encode(prediction.overlay)
        write_file(args.out / f'{frame.name}_labels.png', labels)
        write_file(args.out / f'{frame.name}_overlay.png', overlay)
