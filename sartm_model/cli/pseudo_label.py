"""`sartm pseudo-label`: make labels without people, to train a network on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartm_model.cli.options import (
    Verbs,
    add_dataset,
    add_model,
    add_scales,
    add_verb,
    not_negative,
    positive,
    predictor_from_options,
)
from sartm_model.errors import SartmError

if TYPE_CHECKING:
    from sartm_model.pseudo_labels.from_segments import SegmentSource, SourceImage
    from sartm_model.pseudo_labels.segments import LabelRules

SOURCES = ('network', 'graph', 'sam2', 'masks')

# Options of the sources, without a default, so that one of another source is noticed. Those of
# graph and sam2 have the names of the attributes of `GraphSegments` and `Sam2Segments`.
OPTIONS = {
    'network': ('dataset', 'root', 'split', 'threshold', 'background_threshold'),
    'graph': ('scale', 'min_size'),
    'sam2': (
        'points_per_side',
        'points_per_batch',
        'min_predicted_iou',
        'min_stability',
        'max_box_iou',
    ),
    'masks': ('masks',),
}
# What a network is opened and run with, of `add_model` and `add_scales`.
OF_NETWORKS = {
    'network': ('checkpoint', 'device', 'precision', 'scales'),
    'sam2': ('checkpoint', 'device'),
}
RULES = ('ranking', 'count', 'paint', 'uncovered', 'min_area')  # attributes of `LabelRules`
OF_SEGMENTS = ('images', 'topic', 'preset', 'shard', *RULES)
BAG_PLUGIN = 'sartm.bag_images'


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'pseudo-label',
        run,
        'Label images with a network or by segments, to train a network on them. The result is a\n'
        'data set: {dataset: folder, root: DIR/data.yaml, split: train}.\n\n'
        'With --source network, a pixel of a data set gets its most probable class where the\n'
        'probability, the mean over the images and their mirror images, is above a threshold, and\n'
        '255, "not labelled", elsewhere.\n\n'
        'The other sources divide thermal images into segments; the best segments of an image get\n'
        'the labels 1, 2, 3, ... (SATIR). On such labels a network is pretrained: docs/satir.md.\n'
        'The same command again continues an interrupted run. An image that cannot be read is\n'
        'left out, and the exit status is then 1.',
        'sartm pseudo-label --dataset folder --root unlabelled/data.yaml --split all\n'
        '                   --checkpoint my.safetensors --out pseudo_labels\n'
        'sartm pseudo-label --source graph --images recordings/thermal --out pretrain\n'
        'sartm pseudo-label --source sam2 --checkpoint sam2.1_hiera_large.pt --preset paper\n'
        '                   --images night_bag --topic /thermal/image_raw --out pretrain',
    )
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help='a new folder')
    verb.add_argument(
        '--source',
        choices=SOURCES,
        default='network',
        help='what the labels come from: a network; graph, a graph-based segmentation, which needs '
        "no weights; sam2, SAM2's automatic masks; masks, those that SAM's own script has written "
        '(default: %(default)s)',
    )
    add_model(
        verb,
        'network: a .safetensors checkpoint, demo or demo_depth (default: demo); sam2: the .pt '
        'file of SAM2',
    )
    network = verb.add_argument_group('with --source network')
    add_dataset(network, required=False)
    network.add_argument('--split', metavar='NAME', help='a split of the data set')
    network.add_argument(
        '--threshold',
        metavar='P',
        type=float,
        help='probability above which a class is kept (default: 0.75)',
    )
    network.add_argument(
        '--background-threshold',
        metavar='P',
        type=float,
        help='the same for the background class (default: 0.95)',
    )
    add_scales(network)
    verb.set_defaults(**dict.fromkeys(OF_NETWORKS['network']))  # None, to notice what is given

    segments = verb.add_argument_group('with the other sources')
    segments.add_argument(
        '--images',
        metavar='P',
        type=Path,
        help='a folder, all images in which are taken for thermal, such as recordings/thermal; or '
        'a bag',
    )
    segments.add_argument(
        '--topic',
        metavar='TOPIC',
        help='of the thermal images in a bag (default: that of the node)',
    )
    segments.add_argument(
        '--ranking',
        choices=('predicted_iou', 'area', 'stability', 'contrast'),
        help='which segments are the best (default: predicted_iou; contrast for graph)',
    )
    segments.add_argument(
        '--count', metavar='N', type=positive, help='labelled segments of an image (default: 9)'
    )
    segments.add_argument(
        '--paint',
        choices=('first_on_top', 'last_on_top'),
        help='which segment a pixel of several ones gets (default: first_on_top, the best one)',
    )
    segments.add_argument(
        '--uncovered',
        choices=('background', 'ignore'),
        help='what other pixels get: 0, the background, or 255 (default: background)',
    )
    segments.add_argument(
        '--min-area',
        metavar='PX',
        type=not_negative,
        help='leave out smaller segments (default: 0)',
    )
    segments.add_argument(
        '--preset',
        choices=('paper',),
        help="paper: SATIR's published procedure, predicted_iou, 9, last_on_top, background",
    )
    segments.add_argument(
        '--shard',
        metavar='I/N',
        help='label the I-th of N parts of the images; start the others as well, on other GPUs or '
        'machines, with the same --out',
    )
    segments.add_argument('--scale', type=float, help='graph: higher for larger segments (300)')
    segments.add_argument(
        '--min-size', metavar='PX', type=positive, help='graph: merge smaller segments (50)'
    )
    segments.add_argument('--points-per-side', metavar='N', type=positive, help='sam2: grid (32)')
    segments.add_argument(
        '--points-per-batch', metavar='N', type=positive, help='sam2: decoded at once (64)'
    )
    segments.add_argument('--min-predicted-iou', metavar='P', type=float, help='sam2: (0.8)')
    segments.add_argument('--min-stability', metavar='P', type=float, help='sam2: (0.95)')
    segments.add_argument(
        '--max-box-iou', metavar='P', type=float, help='sam2: of two masks that both stay (0.7)'
    )
    segments.add_argument(
        '--masks', metavar='DIR', type=Path, help='masks: a folder NAME/ with 0.png, ... an image'
    )


def run(args: argparse.Namespace) -> int | None:
    """Write the labels and the YAML file, and print what they are."""
    own = {*OPTIONS[args.source], *OF_NETWORKS.get(args.source, ())}
    every = [name for of in (OPTIONS, OF_NETWORKS) for names in of.values() for name in names]
    others = [name for name in dict.fromkeys(every) if name not in own]
    if args.source == 'network':
        _refuse(args, [*OF_SEGMENTS, *others])
        _label_by_network(args)
        return None
    _refuse(args, others)
    return _label_by_segments(args)


def _refuse(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Raise SartmError if one of the options is given, which the source does not have."""
    given = [f'--{name.replace("_", "-")}' for name in names if getattr(args, name) is not None]
    if given:
        raise SartmError(
            f'--source {args.source} has no {", ".join(given)}; see sartm pseudo-label --help'
        )


def _label_by_network(args: argparse.Namespace) -> None:
    from sartm_model.data.file_frames import FileFrames
    from sartm_model.data.registry import open_dataset
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.pseudo_labels.from_network import class_thresholds, write_pseudo_labels

    if args.dataset is None or args.split is None:
        raise SartmError('--source network needs --dataset and --split')
    dataset = open_dataset(args.dataset, args.root, args.split)
    if not isinstance(dataset, FileFrames):
        raise SartmError(f'{args.dataset} has no files; pseudo-labels need a data set on disk')
    predictor = predictor_from_options(args)
    if isinstance(predictor, OnnxPredictor):
        raise SartmError('an .onnx checkpoint gives no probabilities; give a .safetensors file')
    space = predictor.label_space
    thresholds = class_thresholds(
        space,
        0.75 if args.threshold is None else args.threshold,
        0.95 if args.background_threshold is None else args.background_threshold,
    )
    settings = {
        'source': args.source,
        'checkpoint': args.checkpoint,
        'dataset': args.dataset,
        'root': str(args.root),
        'split': args.split,
    }
    scales = args.scales or [1.0]
    counts = write_pseudo_labels(predictor, dataset, args.out, thresholds, scales, settings)
    shares = 100 * counts / counts.sum()
    print(f'{len(dataset)} frames, {shares[: len(space)].sum():.1f} % of their pixels are kept:')
    for name, share in zip(space.classes, shares, strict=False):
        print(f'  {name:<24}{share:8.3f} %')
    print(f'written to {args.out}')


def _label_by_segments(args: argparse.Namespace) -> int:
    from sartm_model.pseudo_labels.from_segments import Shard, label_images

    if args.images is None:
        raise SartmError(f'--source {args.source} needs --images, a folder or a bag')
    shard = Shard.parse(args.shard or '1/1')
    rules = _rules(args)
    num_images, images = _open_images(args)
    source, settings = _open_source(args)
    settings = {'source': args.source, 'images': str(args.images.resolve()), **settings}
    outcome = label_images(images, num_images, source, rules, args.out, settings, shard)
    print(
        f'{outcome.labelled} images labelled, {outcome.already_there} were already, '
        f'{len(outcome.faults)} left out; written to {args.out}'
    )
    if outcome.colored:
        print(
            f'{outcome.colored} of the images labelled have colours: are they RGB? All images in '
            f'{args.images} were taken for thermal'
        )
    return 1 if outcome.faults else 0


def _rules(args: argparse.Namespace) -> LabelRules:
    from sartm_model.pseudo_labels.segments import PAPER, LabelRules

    given = {name: value for name in RULES if (value := getattr(args, name)) is not None}
    if args.preset == 'paper':
        if given:
            names = ', '.join(f'--{name.replace("_", "-")}' for name in given)
            raise SartmError(f'--preset paper decides {names}; leave out one or the other')
        return PAPER
    return LabelRules(
        **{'ranking': 'contrast' if args.source == 'graph' else 'predicted_iou', **given}
    )


def _open_source(args: argparse.Namespace) -> tuple[SegmentSource, dict[str, Any]]:
    """Return the source of the segments, and what the manifest says of it."""
    given = {
        name: value for name in OPTIONS[args.source] if (value := getattr(args, name)) is not None
    }
    if args.source == 'masks':
        from sartm_model.pseudo_labels.saved_masks import SavedMasks

        if args.masks is None:
            raise SartmError("--source masks needs --masks, the folder of SAM's script")
        return SavedMasks(args.masks), {'masks': str(args.masks.resolve())}
    if args.source == 'graph':
        from sartm_model.pseudo_labels.graph_segments import GraphSegments

        graph = GraphSegments(**given)
        return graph, vars(graph)
    from sartm_model.inference.choices import choose_device
    from sartm_model.pseudo_labels.sam2_segments import Sam2Segments

    if args.checkpoint is None:
        raise SartmError(
            "--source sam2 needs --checkpoint, SAM2's .pt file, which sartm download sam2 fetches"
        )
    device = str(choose_device(args.device or 'auto'))
    sam2 = Sam2Segments(Path(args.checkpoint), device, **given)
    weights = Path(args.checkpoint).name
    fields = ('points_per_side', 'min_predicted_iou', 'min_stability', 'max_box_iou')
    return sam2, {'checkpoint': weights, **{name: getattr(sam2, name) for name in fields}}


def _open_images(args: argparse.Namespace) -> tuple[int, Iterable[SourceImage]]:
    """Return the number of the images, and the images in a fixed order."""
    from sartm_model.pseudo_labels.from_segments import images_below

    path = args.images
    if path.suffix in ('.mcap', '.db3') or (path / 'metadata.yaml').exists():
        for entry in entry_points(group=BAG_PLUGIN):
            return entry.load()(path, args.topic)
        raise SartmError(f'{path} is a bag; reading it needs the package sartm_ros')
    if args.topic is not None:
        raise SartmError(f'--topic needs a bag, but {path} is none')
    images = images_below(path, args.out)
    return len(images), images
