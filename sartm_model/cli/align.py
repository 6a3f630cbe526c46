"""`sartm align`: estimate the homography between two cameras."""

from __future__ import annotations

import argparse
from pathlib import Path

from sartm_model.cli.options import Verbs, add_verb
from sartm_model.utils.files import write_file
from sartm_model.utils.text import format_names


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'align',
        run,
        'Estimate the homography that warps thermal onto RGB. It is computed from points found in\n'
        'both images: listed in a file (thermal x, thermal y, RGB x, RGB y a line, in pixels from\n'
        'the centre of the first one), the inner corners of a checkerboard in one or more pairs\n'
        'of images, or clicked in a window. It is exact only at the distance of these points.\n'
        'The file it writes sets the parameter thermal.homography of the node.',
        'sartm align --rgb rgb.png --thermal thermal.png --points points.csv\n'
        '            --out homography.yaml --blend blend.png\n'
        'sartm align --rgb rgb --thermal thermal --checkerboard 9x6 --out homography.yaml',
    )
    verb.add_argument(
        '--rgb',
        metavar='P',
        type=Path,
        required=True,
        help='an RGB image, or with --checkerboard a folder of them',
    )
    verb.add_argument(
        '--thermal', metavar='P', type=Path, required=True, help='the same of thermal'
    )
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument('--points', metavar='FILE', type=Path, help='point pairs, at least 4')
    source.add_argument(
        '--checkerboard', metavar='COLSxROWS', help='inner corners of the board; it may be inverted'
    )
    source.add_argument('--click', action='store_true', help='click the points in a window')
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='YAML to write')
    verb.add_argument(
        '--blend',
        metavar='PNG',
        type=Path,
        help='write alternating tiles of both images, as a check',
    )


def run(args: argparse.Namespace) -> None:
    """Estimate the homography, print how well it fits and write it."""
    import numpy as np

    from sartm_model.data.file_frames import FolderFrames
    from sartm_model.registration import align as aligning
    from sartm_model.registration.homography import write_homography
    from sartm_model.utils.visualization import encode

    frames = FolderFrames({'rgb': args.rgb, 'thermal': args.thermal})
    points = aligning.collect_points(frames, args.points, args.checkerboard)
    first = frames[frames.names.index(next(iter(points)))]
    rgb, thermal = first.images['rgb'], first.images['thermal']
    sizes = thermal.shape, rgb.shape[:2]
    alignment = aligning.align(np.concatenate(list(points.values())), *sizes)
    print('\n'.join(aligning.describe_points(points, alignment, sizes[1])))
    without_points = [name for name in frames.names if name not in points]
    if without_points:
        print(f'no checkerboard found in both images: {format_names(without_points)}')
    source = args.points or (
        f'a checkerboard {args.checkerboard}' if args.checkerboard else 'clicks'
    )
    comments = aligning.file_comments(alignment, str(source), *sizes)
    print(comments[-1])
    write_homography(args.out, alignment.homography, comments)
    if args.blend is not None:
        picture = aligning.blend(rgb, thermal, alignment.homography)
        write_file(args.blend, encode(picture))
