"""The whole path from images to labels: `python -m sartm_ros.demo.run`, which `make demo` runs.

A night sequence of RGB and thermal, or another second sensor, becomes a bag, the bag is played over
DDS to the installed node, and what the node publishes becomes a contact sheet, an animation and a
summary.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sartm_model.data.file_frames import FolderFrames
from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render_sequence
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models.checkpoint import load
from sartm_model.utils.files import write_file
from sartm_ros.bag.frame_record import summarize
from sartm_ros.bag.reading import RGB_TOPIC, bag_topics, read_images
from sartm_ros.bag.writing import Faults, write_bag
from sartm_ros.demo.pictures import draw, latency_ms
from sartm_ros.demo.play_and_record import play_and_record
from sartm_ros.demo.recorder import Recording, drops
from sartm_ros.demo.results import results
from sartm_ros.messages.images import to_rgb
from sartm_ros.settings.parameters import FIELDS

SEED = 990_010  # a drive with about as many persons and cars as the generator's test split
FRAMES = 40
RATE_HZ = 4.0  # two slow cores can follow; public night sequences have few frames a second too
THERMAL_DELAY_S = 0.007  # two cameras do not trigger at exactly the same time


SHIPPED_FOR = {'thermal': 'demo', 'depth': 'demo_depth'}
"""Modality of the second camera -> the checkpoint of the package that takes it."""


def main(argv: list[str] | None = None) -> int:
    """Run the demo's command line and return its exit status."""
    parser = argparse.ArgumentParser(prog='python -m sartm_ros.demo.run', description=__doc__)
    parser.add_argument('--out', metavar='DIR', type=Path, default=Path('demo_output'))
    parser.add_argument(
        '--modality',
        metavar='NAME',
        choices=FIELDS['x_modality'].metadata['choices'],
        default='thermal',
        help='what the second camera measures, such as depth (default: %(default)s)',
    )
    parser.add_argument(
        '--sequence',
        metavar='DIR',
        type=Path,
        help='folder with rgb/, a folder named after the modality, maybe labels/',
    )
    parser.add_argument(
        '--checkpoint', metavar='F', help='default: that of the package, for thermal and depth'
    )
    parser.add_argument(
        '--loop',
        metavar='N',
        type=int,
        default=1,
        help='play the bag N times; its stamps jump back in between (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    if args.loop < 1:
        parser.error(f'--loop is {args.loop}; expected 1 or more')
    try:
        checkpoint = args.checkpoint or _shipped(args.modality)
        summary = run_demo(args.out, args.sequence, checkpoint, args.loop, x_modality=args.modality)
    except SartmError as error:
        print(f'demo: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(format_summary(summary))
    print(f'\nLook at {args.out / "sheet.png"} and {args.out / "animation.webp"}.')
    return 0 if _ended_well(summary) else 1


def _shipped(x_modality: str) -> str:
    """Return the name of the shipped checkpoint for RGB and a second modality."""
    if x_modality not in SHIPPED_FOR:
        raise SartmError(
            f'no checkpoint for RGB and {x_modality} comes with the package, but for '
            f'{" and ".join(SHIPPED_FOR)}; name one that takes {x_modality}: --checkpoint FILE, or '
            'make demo CHECKPOINT=FILE'
        )
    return SHIPPED_FOR[x_modality]


def _require_both(checkpoint: str, modalities: Sequence[str], x_modality: str) -> None:
    """Raise SartmError unless a network takes RGB and a second modality.

    The node does not subscribe to the images that its network does not take.
    """
    if 'rgb' in modalities and x_modality in modalities:
        return
    others = [name for name in modalities if name != 'rgb']
    remedy = 'name another checkpoint: --checkpoint FILE, or make demo CHECKPOINT=FILE'
    if others and 'rgb' in modalities:
        remedy = f'set --modality {others[0]}, or make demo MODALITY={others[0]}; or {remedy}'
    raise SartmError(
        f'{checkpoint} takes {" and ".join(modalities)} images, but the demo plays rgb and '
        f'{x_modality}; {remedy}'
    )


def run_demo(
    out: Path,
    sequence: Path | None,
    checkpoint: str,
    passes: int = 1,
    *,
    x_modality: str = 'thermal',
) -> dict[str, Any]:
    """Run the demo and return its summary.

    Afterwards `out` has the bags `bag` and `recorded`, sheet.png, animation.webp, summary.json and
    node.log.

    Args:
        out: created if missing; results of an earlier demo are replaced.
        sequence: folder with rgb/, thermal/ and maybe labels/; a generated drive if None.
        checkpoint: a file, or a name of `sartm_model.models.checkpoint.SHIPPED`.
        passes: how often the bag is played.
        x_modality: of the second camera; the sequence has a folder of this name.

    Raises SartmError if the sequence or the checkpoint cannot be used, or the node gives no labels.
    """
    network = load(checkpoint)
    _require_both(checkpoint, network.config.modalities, x_modality)
    label_space = network.label_space
    bag, recorded = out / 'bag', out / 'recorded'
    for earlier in (bag, recorded):
        if (earlier / 'metadata.yaml').exists():
            shutil.rmtree(earlier)
    print(f'Writing {bag} ...', flush=True)
    faults = Faults(thermal_offset_s=THERMAL_DELAY_S)
    write_bag(
        demo_frames(sequence, x_modality, label_space),
        bag,
        x_modality=x_modality,
        rate_hz=RATE_HZ,
        faults=faults,
    )
    height, width = to_rgb(next(read_images(bag, [RGB_TOPIC]))[1]).shape[:2]
    print('Playing it to the node at the recorded rate ...', flush=True)
    recording = play_and_record(
        bag,
        recorded,
        checkpoint=checkpoint,
        x_modality=x_modality,
        height=height,
        width=width,
        log=out / 'node.log',
        passes=passes,
    )
    if not any(recording.received_s):
        raise SartmError(
            f'the node published no labels; dropped: {drops(recording.counters)}, '
            f'see {out / "node.log"}'
        )
    name = 'generated night drive' if sequence is None else sequence.resolve().name
    summary = {
        'sequence': name,
        'checkpoint': checkpoint,
        'x_modality': x_modality,
        'size': [width, height],
        'rate_hz': RATE_HZ,
        **_measure(bag, recorded, recording, x_modality, label_space),
    }
    write_file(out / 'summary.json', json.dumps(summary, indent=2) + '\n')
    print('Drawing ...', flush=True)
    draw(out, bag, recorded, recording, label_space, summary)
    return summary


def format_summary(summary: dict[str, Any]) -> str:
    """Return the summary as a few lines of text."""
    latency, skew = summary['latency_ms'], summary['skew_ms']
    dropped = ', '.join(f'{n} {reason}' for reason, n in summary['dropped'].items())
    lines = [
        ('sequence', f'{summary["sequence"]}, {summary["frames"]} frames at {RATE_HZ:g} Hz'),
        ('pairs in', f'{summary["pairs_in"]}'),
        ('pairs out', f'{summary["pairs_out"]} ({summary["labels_received"]} labels recorded)'),
        ('dropped', dropped or 'none'),
        ('latency', f'median {latency["median"]:.1f} ms, p99 {latency["p99"]:.1f} ms'),
        ('pair skew', f'median {skew["median"]:.1f} ms, max {skew["max"]:.1f} ms'),
    ]
    if len(summary['labels_by_pass']) > 1:
        lines.append(('by pass', ', '.join(map(str, summary['labels_by_pass'])) + ' labels'))
    if summary['metrics'] is not None:
        miou = f'{summary["metrics"]["miou"]:.1f} %, {summary["metrics"]["miou_present"]:.1f} %'
        frames = summary['frames_with_truth']
        lines.append(('mIoU', f'{miou} of the classes present ({frames} frames with truth)'))
    if summary['dropped'].get('replaced'):
        lines.append(('note', 'this machine is slower than the recorded rate: pairs were replaced'))
    if not _ended_well(summary):
        cause, status = summary['node_ended_by'] or 'itself', summary['node_exit_status']
        lines.append(
            ('note', f'the node ended by {cause} with status {status}, not by SIGINT: see node.log')
        )
    return '\n'.join(f'{name:>10}  {text}' for name, text in lines)


def _ended_well(summary: dict[str, Any]) -> bool:
    return summary['node_ended_by'] == 'SIGINT' and summary['node_exit_status'] == 0


def demo_frames(sequence: Path | None, x_modality: str, label_space: LabelSpace) -> Iterator[Frame]:
    """Return the frames that the demo plays.

    Args:
        sequence, x_modality: see `run_demo`.
        label_space: of the network; a generated drive has labels only if it is that of MFNet.
    """
    if sequence is None:
        drive = render_sequence(
            SEED, FRAMES, rate_hz=RATE_HZ, condition='night', modalities=('rgb', x_modality)
        )
        if label_space.classes == MFNET.classes:
            return iter(drive)
        return (Frame(frame.name, frame.images) for frame in drive)
    labels = sequence / 'labels'
    return iter(
        FolderFrames(
            {name: sequence / name for name in ('rgb', x_modality)},
            labels if labels.is_dir() else None,
            label_space=label_space,
        )
    )


def _measure(
    bag: Path, recorded: Path, recording: Recording, x_modality: str, label_space: LabelSpace
) -> dict[str, Any]:
    confusion = ConfusionMatrix(len(label_space))
    latencies_ms, skews_ms = [], []
    for number, received in enumerate(recording.received_s):
        for pair, row in results(bag, recorded, number, received, x_modality):
            latencies_ms.append(latency_ms(pair, recording, number, x_modality))
            if pair.x is not None:
                skews_ms.append(abs(pair.skew_ns) / 1e6)
            if row.ground_truth is not None and row.labels is not None:
                confusion.update(row.labels, row.ground_truth)
    counters = recording.counters
    return {
        'frames': bag_topics(bag)[RGB_TOPIC].messages,
        'rgb_received': counters.get('rgb_received', 0),
        f'{x_modality}_received': counters.get(f'{x_modality}_received', 0),
        'pairs_in': counters.get('pairs_in', 0),
        'pairs_out': counters.get('pairs_out', 0),
        'labels_received': sum(map(len, recording.received_s)),
        'labels_by_pass': [len(received) for received in recording.received_s],
        'overlays_received': recording.overlays,
        'dropped': drops(counters),
        'latency_ms': summarize(latencies_ms, 99, 'p99'),
        'skew_ms': summarize(skews_ms, 100, 'max'),
        'frames_with_truth': confusion.frames,
        'metrics': confusion.compute(label_space) if confusion.frames else None,
        'node_exit_status': recording.exit_status,
        'node_ended_by': recording.ended_by,
    }


if __name__ == '__main__':
    sys.exit(main())
