"""The verbs `sartm make-bag` and `sartm replay`, which setup.py registers in `sartm.verbs`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sartm_model.cli.options import (
    Verbs,
    add_homography,
    add_json,
    add_model,
    add_params,
    add_verb,
    parse_x,
    predictor_from_options,
)
from sartm_model.cli.output import check_report_folder, emit_json


def add_make_bag(verbs: Verbs) -> None:
    """Add `make-bag` and its options."""
    verb = add_verb(
        verbs,
        'make-bag',
        make_bag,
        'Make a rosbag2 bag of images. They are taken in the order of their names, one a period.\n'
        'The faults of real cameras can be added; labels have none. No ROS is needed.',
        'sartm make-bag --rgb night/rgb --thermal night/thermal --out night_bag\n'
        'sartm make-bag --rgb rgb --thermal thermal --labels labels --out bag --rate 30\n'
        '               --thermal-rate 9 --storage sqlite3\n'
        'sartm make-bag --rgb rgb --thermal thermal --out bad_bag --jitter 0.03 --drop 0.05\n'
        '               --thermal-offset 0.02 --freeze 2:1.5 --freeze 8:0.7\n'
        'sartm make-bag --rgb rgb --x depth=depth --out depth_bag',
    )
    verb.add_argument('--rgb', metavar='DIR', type=Path, required=True, help='RGB images')
    second = verb.add_mutually_exclusive_group(required=True)
    second.add_argument('--thermal', metavar='DIR', type=Path, help='thermal images')
    second.add_argument(
        '--x',
        metavar='NAME=DIR',
        help='images of another second camera, such as depth=DIR; the options that are named after '
        'thermal are then about it',
    )
    verb.add_argument('--out', metavar='BAG', type=Path, required=True, help='a new folder')
    verb.add_argument(
        '--labels', metavar='DIR', type=Path, help='true ids, for the topic /ground_truth/labels'
    )
    verb.add_argument(
        '--rate', metavar='HZ', type=float, default=10.0, help='RGB rate (default: %(default)s)'
    )
    verb.add_argument(
        '--thermal-rate', metavar='HZ', type=float, help='thermal rate (default: that of RGB)'
    )
    verb.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    verb.add_argument(
        '--jitter',
        metavar='S',
        type=float,
        default=0.0,
        help='images are received up to S seconds late; their stamps stay',
    )
    verb.add_argument(
        '--drop', metavar='SHARE', type=float, default=0.0, help='share of the images that get lost'
    )
    verb.add_argument(
        '--thermal-offset',
        metavar='S',
        type=float,
        default=0.0,
        help='thermal images are stamped and received S seconds later',
    )
    verb.add_argument(
        '--freeze',
        metavar='START:DURATION',
        action='append',
        default=[],
        help='thermal repeats its last image, from START on, for DURATION seconds; may be repeated',
    )
    verb.add_argument(
        '--seed',
        metavar='N',
        type=int,
        default=0,
        help='of the random faults (default: %(default)s)',
    )


def make_bag(args: argparse.Namespace) -> None:
    """Write the bag and print the number of messages on each topic."""
    from tqdm import tqdm

    from sartm_model.data.file_frames import FolderFrames
    from sartm_model.labels import MAX_CLASSES, LabelSpace
    from sartm_ros.bag.writing import Faults, parse_freeze, write_bag

    x_modality, folder = 'thermal', args.thermal
    if args.x is not None:
        x_modality, folder = parse_x(args.x)

    faults = Faults(
        jitter_s=args.jitter,
        drop=args.drop,
        thermal_offset_s=args.thermal_offset,
        freezes=tuple(parse_freeze(text) for text in args.freeze),
        seed=args.seed,
    )
    # A bag stores ids without their meaning, so every id is allowed.
    any_ids = LabelSpace('ids', tuple(map(str, range(MAX_CLASSES))), ((0, 0, 0),) * MAX_CLASSES)
    frames = FolderFrames({'rgb': args.rgb, x_modality: folder}, args.labels, label_space=any_ids)
    counts = write_bag(
        tqdm(frames, total=len(frames), unit='frame', disable=None),
        args.out,
        x_modality=x_modality,
        rate_hz=args.rate,
        thermal_rate_hz=args.thermal_rate,
        faults=faults,
        storage=args.storage,
    )
    for topic, count in counts.items():
        print(f'{count:6d}  {topic}')


def add_replay(verbs: Verbs) -> None:
    """Add `replay` and its options."""
    verb = add_verb(
        verbs,
        'replay',
        replay,
        'Run a checkpoint over every pair of a bag, offline. Pairs are matched and stalled\n'
        "cameras handled as by the node with the parameters of --params, or else with the node's\n"
        'defaults. True labels come from the folder --labels, or else from a topic. In the\n'
        'folder, stamps.csv, whose first line is stamp_ns,file, says which RGB image each file\n'
        'belongs to; without it they are taken in order. No ROS is needed.',
        'sartm replay night_bag\n'
        'sartm replay night_bag --checkpoint my.safetensors --json night.json --report night\n'
        'sartm replay night_bag --params sartm.yaml\n'
        'sartm replay night_bag --labels labels --rgb-topic /camera/color/image_raw/compressed',
    )
    verb.add_argument('bag', metavar='BAG', type=Path, help='rosbag2 folder, .mcap or .db3 file')
    verb.add_argument('--labels', metavar='DIR', type=Path, help='true ids, by stamp or by order')
    verb.add_argument(
        '--report', metavar='DIR', type=Path, help='write report.html, frames.csv and sheet.png'
    )
    verb.add_argument(
        '--rgb-topic',
        metavar='TOPIC',
        help="default: the node's, /camera/color/image_raw; '': none",
    )
    verb.add_argument(
        '--thermal-topic', metavar='TOPIC', help="default: the node's, /thermal/image_raw; '': none"
    )
    verb.add_argument(
        '--x-modality',
        metavar='NAME',
        help="what the second camera measures, such as depth (default: the node's, thermal)",
    )
    verb.add_argument(
        '--x-topic',
        metavar='TOPIC',
        help="topic of another --x-modality than thermal (default: the node's, /NAME/image_raw)",
    )
    verb.add_argument(
        '--labels-topic',
        metavar='TOPIC',
        help="true ids; '' for none (default: /ground_truth/labels, if any)",
    )
    add_homography(verb)
    add_json(verb)
    add_model(verb)
    add_params(
        verb,
        'checkpoint, device, precision, engine, x_modality, the topics, sync.*, stall_after, '
        'rgb.* and thermal.*',
    )


def replay(args: argparse.Namespace) -> None:
    """Print the metrics of the bag's pairs, and write the report."""
    from sartm_ros.bag import replay as replaying
    from sartm_ros.settings.cameras import forgotten_modality
    from sartm_ros.settings.loading import predictor_options
    from sartm_ros.settings.parameter_file import read_parameter_file
    from sartm_ros.settings.ros_parameters import parse

    if args.report is not None:
        check_report_folder(args.report)
    options = ('rgb_topic', 'thermal_topic', 'x_modality', 'x_topic')
    given = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
    parameters = parse(given) if args.params is None else read_parameter_file(args.params, given)
    if parameters.sync_policy != 'nearest':
        print(
            f'sartm replay: sync.policy is {parameters.sync_policy}, which only the node has; '
            'pairs are matched by nearest',
            file=sys.stderr,
        )
    # Without a parameter file an exported file keeps its own range, which the node's would replace.
    params = None if args.params is None else predictor_options(parameters)
    predictor = predictor_from_options(args, params=params)
    if forgotten := forgotten_modality(parameters, predictor.modalities):
        print(f'sartm replay: {forgotten}', file=sys.stderr)
    result = replaying.replay(
        args.bag,
        predictor,
        labels=args.labels,
        report=args.report,
        labels_topic=args.labels_topic,
        parameters=parameters,
    )
    for warning in ('range_warning', 'labels_warning'):
        if result[warning] is not None:
            print(f'sartm replay: {result[warning]}', file=sys.stderr)
    emit_json({'checkpoint': str(args.checkpoint), **result}, args.json)
