"""`sartm predict`: segment images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sartm_model.cli.options import (
    Verbs,
    add_dataset,
    add_homography,
    add_modality,
    add_model,
    add_params,
    add_verb,
    parse_x,
    predictor_from_options,
    read_params,
)
from sartm_model.errors import SartmError

if TYPE_CHECKING:
    from sartm_model.data.base import FrameDataset


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'predict',
        run,
        'Segment images. Writes STEM_labels.png (class ids) and STEM_overlay.png at the size of\n'
        'the RGB image, or of the thermal image if there is no RGB. In folders, files of the\n'
        'same stem belong together. Either of the two images may be left out. Instead of both, a\n'
        'split of a data set may be given.',
        'sartm predict --rgb night/rgb --thermal night/thermal --out labels\n'
        'sartm predict --checkpoint rgbx.safetensors --rgb rgb --x depth=depth --out labels\n'
        'sartm predict --dataset folder --root yard/data.yaml --split val --out labels\n'
        'sartm predict --checkpoint my.safetensors --thermal hall.png --out labels\n'
        'sartm predict --params sartm.yaml --rgb rgb --thermal thermal --out labels',
    )
    verb.add_argument('--rgb', metavar='P', type=Path, help='an RGB image or a folder of them')
    verb.add_argument('--thermal', metavar='P', type=Path, help='a thermal image, or a folder')
    verb.add_argument(
        '--x',
        metavar='NAME=P',
        help='instead of --thermal, images of another second sensor, such as depth=DIR',
    )
    add_dataset(verb, required=False)
    verb.add_argument('--split', metavar='NAME', help='a split of the data set')
    add_modality(verb)
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help='where to write')
    add_homography(verb)
    add_model(verb)
    add_params(
        verb,
        'checkpoint, device, precision, engine and of thermal.*: range, low, high, crop, invalid, '
        'polarity, shift and homography',
    )


def run(args: argparse.Namespace) -> None:
    """Write the labels and the overlay of each image."""
    frames = _open_frames(args)
    from tqdm import tqdm

    from sartm_model.modalities import check_selection, select
    from sartm_model.modalities.thermal_contrast import range_warning
    from sartm_model.utils.files import write_file
    from sartm_model.utils.visualization import encode

    predictor = predictor_from_options(args)
    check_selection(
        args.modality, predictor.modalities, f'checkpoint {args.checkpoint} has no modality'
    )
    selected = select(args.modality, predictor.modalities)
    chosen = args.dataset is not None or args.modality != 'both'
    if args.dataset:
        frames = frames.with_modalities(selected)
    shift = read_params(args).thermal_shift
    warning = ''
    for frame in tqdm(frames, total=len(frames), unit='frame', disable=None):
        # A data set may have images of more sensors than the network takes, or than are wanted.
        images = dict(frame.select(selected) if chosen else frame.images)
        if shift and 'thermal' in images and images['thermal'].itemsize == 2:
            images['thermal'] = images['thermal'] >> shift
        if not warning and 'thermal' in images:
            warning = range_warning(images['thermal'], predictor.thermal_settings)
            if warning:
                tqdm.write(f'sartm predict: warning: {frame.name}: {warning}', file=sys.stderr)
        prediction = predictor.predict(images, overlay=True)
        assert prediction.overlay is not None
        labels, overlay = encode(prediction.labels), encode(prediction.overlay)
        write_file(args.out / f'{frame.name}_labels.png', labels)
        write_file(args.out / f'{frame.name}_overlay.png', overlay)


def _open_frames(args: argparse.Namespace) -> FrameDataset:
    """Return the frames that --rgb and --thermal or --x, or --dataset, --root and --split give."""
    if args.x is not None and args.thermal is not None:
        raise SartmError('--x and --thermal are both given; a network takes one second image')
    images = {'rgb': args.rgb, 'thermal': args.thermal}
    if args.x is not None:
        name, path = parse_x(args.x)
        images = {'rgb': args.rgb, name: path}
    has_images = any(path is not None for path in images.values())
    if args.dataset is None and args.root is None and args.split is None:
        if not has_images:
            raise SartmError(
                'neither --rgb nor --thermal is given; give one of them, --x or --dataset'
            )
        from sartm_model.data.file_frames import FolderFrames

        return FolderFrames(images)
    if args.dataset is None or args.split is None or has_images:
        raise SartmError('a data set needs --dataset and --split, without --rgb, --thermal, --x')
    from sartm_model.data.registry import open_dataset

    return open_dataset(args.dataset, args.root, args.split)
