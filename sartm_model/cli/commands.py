"""What the verbs of the `sartm` command do; each imports what it needs when it runs."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartm_model.errors import SartmError
from sartm_model.utils.files import write_file
from sartm_model.utils.text import format_names

if TYPE_CHECKING:
    from sartm_model.data.frame import Frame
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.inference.predictor import Predictor


def predict(args: Namespace) -> None:
    """Write labels and overlay of each image."""
    if args.rgb is None and args.thermal is None:
        raise SartmError('neither --rgb nor --thermal is given; give at least one of them')
    from tqdm import tqdm

    from sartm_model.data.folder import FolderPairs
    from sartm_model.utils.visualization import encode

    frames = FolderPairs(args.rgb, args.thermal)
    predictor = _predictor(args)
    for frame in tqdm(frames, total=len(frames), unit='frame', disable=None):
        prediction = predictor.predict(frame.rgb, frame.thermal, overlay=True)
        assert prediction.overlay is not None
        labels, overlay = encode(prediction.labels), encode(prediction.overlay)
        write_file(args.out / f'{frame.name}_labels.png', labels)
        write_file(args.out / f'{frame.name}_overlay.png', overlay)


def evaluate(args: Namespace) -> None:
    """Give the metrics of a checkpoint on a split."""
    import numpy as np
    import torch

    from sartm_model.data.registry import open_dataset
    from sartm_model.evaluation.corruptions import CorruptedDataset
    from sartm_model.evaluation.evaluate import FramePrediction
    from sartm_model.evaluation.evaluate import evaluate as measure
    from sartm_model.evaluation.multi_scale_flip import check_scales, probabilities
    from sartm_model.inference.onnx_predictor import OnnxPredictor

    if args.report is not None:
        write_report = _report_writer(args.report)
    check_scales(args.scales)
    dataset = CorruptedDataset(
        open_dataset(args.dataset, args.root, args.split),
        modality=args.modality,
        corruption=args.corruption,
        severity=args.severity,
    )
    predictor = _predictor(args)
    if predictor.label_space.classes != dataset.label_space.classes:
        raise SartmError(
            f'checkpoint {args.checkpoint} knows the classes of {predictor.label_space.name!r}, '
            f'but {args.dataset} has those of {dataset.label_space.name!r}'
        )

    if isinstance(predictor, OnnxPredictor) and (args.flip or args.scales != [1.0]):
        raise SartmError(
            'an .onnx checkpoint gives no probabilities; leave --flip and --scales out'
        )

    def answer(frame: Frame) -> FramePrediction:
        if isinstance(predictor, OnnxPredictor):
            given = predictor.predict(frame.rgb, frame.thermal, confidence=True)
            assert given.confidence is not None
            return FramePrediction(given.labels, given.confidence / np.float32(255))
        found = probabilities(
            predictor, frame.rgb, frame.thermal, flip=args.flip, scales=args.scales
        )
        confidence, labels = found.max(dim=0)
        return FramePrediction(labels.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy())

    named = ('checkpoint', 'dataset', 'split', 'modality', 'corruption', 'severity')
    settings = {
        **{name: getattr(args, name) for name in named},
        'head': predictor.head,
        'flip': args.flip,
        'scales': args.scales,
        'device': str(predictor.device),
        'precision': predictor.precision,
    }
    result = {**measure(answer, dataset), 'settings': settings}
    _give(result, args.json)
    if args.report is not None:
        write_report(args.report, result, dataset, answer)


def align(args: Namespace) -> None:
    """Estimate the homography between two cameras."""
    import numpy as np

    from sartm_model.data.folder import FolderPairs
    from sartm_model.registration import align as aligning
    from sartm_model.registration.homography import write_homography
    from sartm_model.utils.visualization import encode

    frames = FolderPairs(args.rgb, args.thermal)
    points = aligning.collect_points(frames, args.points, args.checkerboard)
    first = frames[frames.names.index(next(iter(points)))]
    assert first.rgb is not None
    assert first.thermal is not None
    sizes = first.thermal.shape, first.rgb.shape[:2]
    alignment = aligning.align(np.concatenate(list(points.values())), *sizes)
    print('\n'.join(aligning.describe_points(points, alignment, sizes[1])))
    unseen = [name for name in frames.names if name not in points]
    if unseen:
        print(f'no checkerboard seen by both cameras: {format_names(unseen)}')
    source = args.points or (
        f'a checkerboard {args.checkerboard}' if args.checkerboard else 'clicks'
    )
    notes = aligning.notes(alignment, str(source), *sizes)
    print(notes[-1])
    write_homography(args.out, alignment.homography, notes)
    if args.blend is not None:
        picture = aligning.blend(first.rgb, first.thermal, alignment.homography)
        write_file(args.blend, encode(picture))


def train(args: Namespace) -> None:
    """Train a network."""
    from sartm_model.training.run import train as run_training

    run_training(args.config, args.out, args.overrides, resume=args.resume)


def data(args: Namespace) -> int:
    """Check a data set; 1 where it has faults."""
    from sartm_model.data.validation import check
    from sartm_model.data.validation_report import summary

    report = check(args.dataset, args.root, args.split)
    print(summary(report))
    if args.json is not None:
        write_file(args.json, to_json(report.to_dict()) + '\n')
        print(f'written to {args.json}')
    return 1 if report.faults else 0


def download(args: Namespace) -> None:
    """Fetch SAM2's weights."""
    from sartm_model.models.sam2_download import SAM2_FILES, download_sam2

    path = download_sam2(args.size, args.out, args.version)
    print(f'{path}  sha256 {SAM2_FILES[args.version, args.size].sha256}')
    print(f'train with: model.size={args.size} sam2_weights={path}')


def info(args: Namespace) -> None:
    """Describe a checkpoint."""
    from sartm_model.models.checkpoint import describe

    _give(describe(args.checkpoint, args.height, args.width), None)


def benchmark(args: Namespace) -> None:
    """Time a checkpoint, or the ways to run it side by side."""
    from contextlib import nullcontext

    from sartm_model.inference import benchmark as measuring

    if args.compare and args.precision != 'auto':
        raise SartmError('--compare runs every precision in turn; leave --precision out')
    source = measuring.untrained(args.size) if args.size else nullcontext(args.checkpoint)
    with source as checkpoint:
        if args.compare:
            result = measuring.compare(
                checkpoint,
                args.height,
                args.width,
                device=args.device,
                iterations=args.iterations,
            )
        else:
            result = measuring.benchmark(
                checkpoint,
                args.height,
                args.width,
                device=args.device,
                precision=args.precision,
                iterations=args.iterations,
            )
    _give({**result, 'checkpoint': args.size or str(args.checkpoint)}, args.json)


def adapters(args: Namespace) -> None:
    """Take SAM2's weights out of a checkpoint, or put them back."""
    from sartm_model.models.adapters import apply, extract

    if args.sam2 is None:
        extract(args.file, args.out)
    else:
        apply(args.file, args.sam2, args.out)
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')


def make_bag(args: Namespace) -> None:
    """Make a bag of images."""
    from tqdm import tqdm

    from sartm_model.data.folder import FolderPairs
    from sartm_model.labels import MAX_CLASSES, LabelSpace
    from sartm_ros.bag.writing import Faults, parse_freeze, write_bag

    faults = Faults(
        jitter_s=args.jitter,
        drop=args.drop,
        thermal_offset_s=args.thermal_offset,
        freezes=tuple(parse_freeze(text) for text in args.freeze),
        seed=args.seed,
    )
    # A bag holds ids whatever they mean, so every id is allowed.
    any_ids = LabelSpace('ids', tuple(map(str, range(MAX_CLASSES))), ((0, 0, 0),) * MAX_CLASSES)
    frames = FolderPairs(args.rgb, args.thermal, args.labels, label_space=any_ids)
    counts = write_bag(
        tqdm(frames, total=len(frames), unit='frame', disable=None),
        args.out,
        rate_hz=args.rate,
        thermal_rate_hz=args.thermal_rate,
        faults=faults,
        storage=args.storage,
    )
    for topic, count in counts.items():
        print(f'{count:6d}  {topic}')


def replay(args: Namespace) -> None:
    """Run a checkpoint over a bag."""
    from sartm_ros.bag.reading import RGB_TOPIC, THERMAL_TOPIC
    from sartm_ros.bag.replay import replay as run_over_bag

    if args.report is not None:
        _report_writer(args.report)  # of the same parts
    result = run_over_bag(
        args.bag,
        _predictor(args),
        labels=args.labels,
        report=args.report,
        rgb_topic=args.rgb_topic or RGB_TOPIC,
        thermal_topic=args.thermal_topic or THERMAL_TOPIC,
        labels_topic=args.labels_topic,
    )
    _give({'checkpoint': str(args.checkpoint), **result}, args.json)


def export(args: Namespace) -> None:
    """Write a checkpoint for other runtimes."""
    from sartm_model.export.exported_model import ExportConfig
    from sartm_model.export.onnx_export import export_onnx

    sizes = {side: getattr(args, side) for side in ('height', 'width')}
    if args.thermal_size:
        sizes['thermal_height'], sizes['thermal_width'] = args.thermal_size
    sizes = {side: pixels for side, pixels in sizes.items() if pixels is not None}
    config = ExportConfig(
        **sizes,
        modality=args.modality,
        thermal_type=args.thermal_type,
        thermal_range=('fixed', *args.thermal_range)
        if args.thermal_range
        else ExportConfig.thermal_range,
        precision=args.precision,
    )
    export_onnx(args.checkpoint, args.out, config)
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')


def _predictor(args: Namespace) -> Predictor | OnnxPredictor:
    from sartm_model.inference.onnx_predictor import open_predictor
    from sartm_model.registration.homography import read_homography

    head = getattr(args, 'head', None)  # of the verbs that have it
    predictor = open_predictor(
        args.checkpoint, device=args.device, precision=args.precision, head=head
    )
    if getattr(args, 'homography', None) is not None:
        predictor.homography = read_homography(args.homography)
    return predictor


def _report_writer(folder: Path) -> Callable[..., None]:
    """What writes a report; complains before anything is measured where it could not."""
    if folder.exists() and not folder.is_dir():
        raise SartmError(f'{folder} is a file; --report takes a folder')
    try:
        from sartm_model.evaluation.report.report import write_report
    except ModuleNotFoundError as error:
        raise SartmError(f'--report needs {error.name}, which pip installs') from None
    return write_report


def _give(result: dict[str, Any], path: Path | None) -> None:
    """Print the result, or write it to the file that was asked for and print its figures."""
    text = to_json(result)
    if path is None:
        print(text)
        return
    write_file(path, text + '\n')
    for name, value in result.items():
        if isinstance(value, (int, float, str)):
            print(f'{name}: {value:.2f}' if isinstance(value, float) else f'{name}: {value}')
    print(f'written to {path}')


def to_json(value: Any, indent: int = 0) -> str:
    """`value` as JSON with an entry a line, lists of plain numbers and words on one line."""
    inner, outer = '  ' * (indent + 1), '  ' * indent
    if isinstance(value, dict) and value:
        lines = [f'{inner}{json.dumps(str(k))}: {to_json(v, indent + 1)}' for k, v in value.items()]
        return '{\n' + ',\n'.join(lines) + f'\n{outer}}}'
    if isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list, tuple)) for v in value):
        lines = [f'{inner}{to_json(v, indent + 1)}' for v in value]
        return '[\n' + ',\n'.join(lines) + f'\n{outer}]'
    return json.dumps(value)
