"""`sartm export`: write a checkpoint as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sartm_model.cli.options import Verbs, add_modality, add_size, add_verb, positive
from sartm_model.errors import SartmError

if TYPE_CHECKING:
    from sartm_model.inference.export_config import ExportConfig

POLARITIES = ('white_hot', 'black_hot')  # of `ThermalSettings`, which needs NumPy


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'export',
        run,
        'Write a checkpoint for other runtimes. The file is ONNX, for ONNX Runtime, for\n'
        '--checkpoint and for the node. It takes images as cameras give them and gives labels and\n'
        'confidence; preprocessing and postprocessing are part of it.',
        'sartm export --checkpoint demo --out demo.onnx\n'
        'sartm export --checkpoint my.safetensors --height 720 --width 1280 --out my.onnx\n'
        'sartm export --checkpoint my.safetensors --thermal-type uint16 --thermal-size 512 640\n'
        '             --thermal-range 28000 32000 --out my.onnx',
    )
    verb.add_argument(
        '--checkpoint',
        metavar='F',
        default='demo',
        help='a .safetensors checkpoint, demo or demo_depth (default: %(default)s)',
    )
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='.onnx file to write')
    add_size(verb, 'the images')
    add_modality(verb)
    verb.add_argument(
        '--thermal-size',
        metavar=('H', 'W'),
        type=positive,
        nargs=2,
        help='of thermal, or of another second image, beside RGB (default: that of RGB)',
    )
    verb.add_argument(
        '--thermal-type',
        choices=('uint8', 'uint16', 'float32'),
        default='uint8',
        help='of the pixels of thermal; float32, for TensorRT, gives images of 16 bits, such as '
        'depth, as floating point (default: uint8)',
    )
    verb.add_argument(
        '--thermal-range',
        metavar=('LOW', 'HIGH'),
        type=float,
        nargs=2,
        help="counts shown as 0 and as 1 (default: each image's percentiles)",
    )
    verb.add_argument(
        '--thermal-crop',
        metavar=('TOP', 'RIGHT', 'BOTTOM', 'LEFT'),
        type=int,
        nargs=4,
        default=(0, 0, 0, 0),
        help='rows and columns to cut off, such as telemetry (default: none)',
    )
    verb.add_argument(
        '--thermal-invalid',
        metavar='COUNT',
        type=int,
        nargs='+',
        default=(),
        help="counts that mean 'no measurement' (default: none but fill that is recognised)",
    )
    verb.add_argument(
        '--thermal-polarity',
        choices=POLARITIES,
        default=POLARITIES[0],
        help='black_hot if hot things have low counts (default: %(default)s)',
    )
    verb.add_argument(
        '--precision', choices=('fp32', 'fp16'), default='fp32', help='of the network'
    )


def run(args: argparse.Namespace) -> None:
    """Write the file and print its size."""
    from sartm_model.export.onnx_export import export_onnx
    from sartm_model.inference.export_config import ExportConfig
    from sartm_model.models import checkpoint as checkpoints

    sizes = {'height': args.height, 'width': args.width}
    if args.thermal_size:
        sizes['thermal_height'], sizes['thermal_width'] = args.thermal_size
    config = ExportConfig(
        **sizes,
        modalities=checkpoints.load(args.checkpoint).config.modalities,
        modality=args.modality,
        thermal_type=args.thermal_type,
        thermal_range=('fixed', *args.thermal_range)
        if args.thermal_range
        else ExportConfig.thermal_range,
        precision=args.precision,
        thermal_crop=tuple(args.thermal_crop),
        thermal_invalid=tuple(args.thermal_invalid),
        thermal_polarity=args.thermal_polarity,
    )
    _check_effects(args, config)
    export_onnx(args.checkpoint, args.out, config)
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')


def _check_effects(args: argparse.Namespace, config: ExportConfig) -> None:
    """Raise SartmError if an option is of an image that the file does not take."""
    from sartm_model.inference.export_config import ExportConfig
    from sartm_model.modalities import MODALITIES

    takes = f'the file takes {" and ".join(config.sizes)}'
    if args.thermal_size and len(config.sizes) == 1:
        raise SartmError(
            f'--thermal-size is of a second image, but {takes} alone; give its size as --height '
            'and --width'
        )
    has_range = any(MODALITIES[name].has_range for name in config.sizes)
    if not has_range and config.thermal_settings != ExportConfig().thermal_settings:
        raise SartmError(
            '--thermal-range, --thermal-crop, --thermal-invalid and --thermal-polarity are of '
            f'thermal, but {takes}; leave them out'
        )
    has_types = any('uint16' in MODALITIES[name].dtypes for name in config.sizes)
    if not has_types and config.thermal_type != ExportConfig.thermal_type:
        raise SartmError(
            f'--thermal-type {config.thermal_type} is of thermal or depth, but {takes}; '
            'leave it out'
        )
