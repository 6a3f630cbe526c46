"""The main job from end to end: `python -m sartm_ros.demo.run --out demo_output`, or `make demo`.

An RGB-thermal night sequence becomes a bag, the bag is played over DDS to the installed node, and
what the node publishes becomes a contact sheet, an animation and a summary.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.data.folder import FolderPairs
from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render_sequence
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix, metrics
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models.checkpoint import load
from sartm_model.utils.files import write_file
from sartm_ros.bag.contact_sheet import Row, contact_sheet, png_bytes, webp_bytes
from sartm_ros.bag.reading import (
    RGB_TOPIC,
    THERMAL_TOPIC,
    BagPair,
    read_images,
    topics,
)
from sartm_ros.bag.replay import spread
from sartm_ros.bag.writing import Faults, write_bag
from sartm_ros.demo.recording import results
from sartm_ros.demo.trial import Recording, drops, run_trial
from sartm_ros.messages.images import to_rgb

SEED = 990_010  # of the generated drive; persons and cars are found as often as in split test
FRAMES = 40
RATE_HZ = 4.0  # about what two slow cores keep up with; real night sequences are sparse too
THERMAL_DELAY_S = 0.007  # two cameras are never triggered at the same instant
SHEET_ROWS = 6
ANIMATED_FRAMES = 200  # at most; of a longer sequence the first ones


def main(argv: list[str] | None = None) -> int:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(prog='python -m sartm_ros.demo.run', description=__doc__)
    parser.add_argument('--out', metavar='DIR', type=Path, default=Path('demo_output'))
    parser.add_argument(
        '--sequence', metavar='DIR', type=Path, help='folder with rgb/, thermal/, maybe labels/'
    )
    parser.add_argument('--checkpoint', metavar='F', default='demo', help='default: %(default)s')
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
        summary = run_demo(args.out, args.sequence, args.checkpoint, args.loop)
    except SartmError as error:
        print(f'demo: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(readable(summary))
    print(f'\nLook at {args.out / "sheet.png"} and {args.out / "animation.webp"}.')
    return 0


def run_demo(out: Path, sequence: Path | None, checkpoint: str, passes: int = 1) -> dict[str, Any]:
    """Run the demo and leave in `out`: bag, recorded (a bag), sheet.png, animation.webp,
    summary.json and node.log.

    Args:
        out: made where it is missing; what an earlier demo left there is replaced.
        sequence: folder with rgb/, thermal/ and maybe labels/; a generated drive where left out.
        checkpoint: a file, or 'demo'.
        passes: how often the bag is played.

    Returns:
        The summary.

    Raises SartmError where the sequence or the checkpoint cannot be used, or the node fails.
    """
    label_space = load(checkpoint).label_space
    bag, recorded = out / 'bag', out / 'recorded'
    for earlier in (bag, recorded):
        if (earlier / 'metadata.yaml').exists():
            shutil.rmtree(earlier)
    print(f'Writing {bag} ...', flush=True)
    faults = Faults(thermal_offset_s=THERMAL_DELAY_S)
    write_bag(_frames(sequence, label_space), bag, rate_hz=RATE_HZ, faults=faults)
    first = to_rgb(next(read_images(bag, [RGB_TOPIC]))[1])
    print('Playing it to the node at the recorded rate ...', flush=True)
    recording = run_trial(
        bag,
        recorded,
        checkpoint=checkpoint,
        height=first.shape[0],
        width=first.shape[1],
        log=out / 'node.log',
        passes=passes,
    )
    if recording.exit_status != 0:
        raise SartmError(
            f'the node ended with status {recording.exit_status} on SIGINT; see {out / "node.log"}'
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
        'size': [first.shape[1], first.shape[0]],
        'rate_hz': RATE_HZ,
        **_summary(bag, recorded, recording, label_space),
    }
    write_file(out / 'summary.json', json.dumps(summary, indent=2) + '\n')
    print('Drawing ...', flush=True)
    _draw(bag, recorded, recording, label_space, summary, out)
    return summary


def readable(summary: dict[str, Any]) -> str:
    """The summary as a few lines of text."""
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
    return '\n'.join(f'{name:>10}  {text}' for name, text in lines)


def _frames(sequence: Path | None, label_space: LabelSpace) -> Iterator[Frame]:
    if sequence is None:
        drive = render_sequence(SEED, FRAMES, rate_hz=RATE_HZ, condition='night')
        same = label_space.classes == MFNET.classes
        return (f if same else Frame(f.name, f.rgb, f.thermal) for f in drive)
    labels = sequence / 'labels'
    return iter(
        FolderPairs(
            sequence / 'rgb',
            sequence / 'thermal',
            labels if labels.is_dir() else None,
            label_space=label_space,
        )
    )


def _summary(
    bag: Path, recorded: Path, recording: Recording, label_space: LabelSpace
) -> dict[str, Any]:
    confusion = ConfusionMatrix(len(label_space))
    latencies_ms, skews_ms = [], []
    for number in range(len(recording.received_s)):
        for pair, row in results(bag, recorded, number, recording.received_s[number]):
            latencies_ms.append(_latency_ms(pair, recording, number))
            if pair.thermal is not None:
                skews_ms.append(abs(pair.skew_ns) / 1e6)
            if row.truth is not None and row.labels is not None:
                confusion.update(row.labels, row.truth)
    counters = recording.counters
    return {
        'frames': topics(bag)[RGB_TOPIC].messages,
        'rgb_received': counters.get('rgb_received', 0),
        'thermal_received': counters.get('thermal_received', 0),
        'pairs_in': counters.get('pairs_in', 0),
        'pairs_out': counters.get('pairs_out', 0),
        'labels_received': sum(map(len, recording.received_s)),
        'labels_by_pass': [len(received) for received in recording.received_s],
        'overlays_received': recording.overlays,
        'dropped': drops(counters),
        'latency_ms': spread(latencies_ms, 99, 'p99'),
        'skew_ms': spread(skews_ms, 100, 'max'),
        'frames_with_truth': confusion.frames,
        'metrics': metrics(confusion, label_space) if confusion.frames else None,
        'node_exit_status': recording.exit_status,
    }


def _latency_ms(pair: BagPair, recording: Recording, number: int) -> float:
    """From the publication of the pair's later message to the receipt of its labels."""
    published_s = recording.published_s[number]
    sent_s = published_s[RGB_TOPIC, pair.stamp_ns]
    if pair.thermal is not None:
        sent_s = max(sent_s, published_s[THERMAL_TOPIC, pair.stamp_ns + pair.skew_ns])
    return 1e3 * (recording.received_s[number][pair.stamp_ns] - sent_s)


def _draw(
    bag: Path,
    recorded: Path,
    recording: Recording,
    label_space: LabelSpace,
    summary: dict[str, Any],
    out: Path,
) -> None:
    """Write the contact sheet, of frames spread over the sequence, and the animation.

    Both show the first pass that gave labels.
    """
    number = next(n for n, received in enumerate(recording.received_s) if received)
    received = recording.received_s[number]
    count = len(received)
    chosen = set(np.linspace(0, count - 1, min(SHEET_ROWS, count)).round().astype(int).tolist())
    title = f'SARTM: {summary["sequence"]}'
    dropped = sum(summary['dropped'].values())
    subtitle = (
        f'{summary["pairs_in"]} pairs in, {summary["pairs_out"]} out, {dropped} dropped; '
        f'latency {summary["latency_ms"]["median"]:.0f} ms'
    )
    if summary['metrics'] is not None:
        subtitle += f'; mIoU {summary["metrics"]["miou"]:.1f} %'

    def rows() -> Iterator[Row]:
        for pair, row in results(bag, recorded, number, recording.received_s[number]):
            caption = (
                f'frame {pair.index}   skew {pair.skew_ns / 1e6:+.1f} ms   '
                f'latency {_latency_ms(pair, recording, number):.0f} ms'
            )
            yield replace(row, caption=caption)

    shown = [row for place, row in enumerate(rows()) if place in chosen]
    write_file(out / 'sheet.png', png_bytes(contact_sheet(shown, label_space, title, subtitle)))
    with_truth = summary['frames_with_truth'] > 0
    pictures = (
        contact_sheet([row], label_space, title, with_truth=with_truth)
        for row in islice(rows(), ANIMATED_FRAMES)
    )
    # As fast as it was, also where only some of the pairs came out.
    stamps = sorted(received)
    period_s = (stamps[-1] - stamps[0]) / 1e9 / (count - 1) if count > 1 else 1 / RATE_HZ
    write_file(out / 'animation.webp', webp_bytes(pictures, period_s))


if __name__ == '__main__':
    sys.exit(main())
