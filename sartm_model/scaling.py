"""How the cost of a pair grows with pixels, classes and rigs.

    python -m sartm_model.scaling --out scaling

Leaves `scaling.json` and `scaling.png`. With `--part` one part is measured, and what the folder
holds of the others is kept. What is compared runs in turn, pair by pair, so that a slow minute hits
all alike.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartm_model import checkpoint as checkpoints
from sartm_model.benchmark import device_name, images, timed, untrained
from sartm_model.config import SIZES
from sartm_model.errors import SartmError
from sartm_model.files import write_file
from sartm_model.labels import LabelSpace
from sartm_model.network import Sartm
from sartm_model.predictor import Predictor
from sartm_model.rigs import ask, by_rigs, running

SHAPES = ((240, 320), (480, 640), (720, 960), (960, 1280))
"""Height and width of the images."""

SHAPE = (480, 640)
"""Of those that classes and rigs are measured with."""

CLASSES = (2, 9, 19, 40, 80, 150)
RIGS = (1, 2, 3, 4)
LONGEST_S = 6.0
"""A network is shown no larger image than one that took it longer."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog='python -m sartm_model.scaling',
        description='Measure how the cost of a pair grows with pixels, classes and rigs.',
    )
    parser.add_argument('--out', metavar='DIR', type=Path, default=Path('scaling'))
    parser.add_argument('--checkpoint', metavar='FILE', default='demo')
    parser.add_argument(
        '--size', nargs='*', choices=SIZES, default=['nano', 'tiny'],
        help='untrained networks that are measured against pixels too',
    )  # fmt: skip
    parser.add_argument('--part', choices=('pixels', 'classes', 'rigs'), help='default: all')
    parser.add_argument('--device', default='auto')
    args = parser.parse_args(argv)
    checkpoint, device = args.checkpoint, args.device
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        'pixels': lambda: by_pixels(checkpoint, args.size, SHAPES, device=device),
        'classes': lambda: by_classes(checkpoint, CLASSES, SHAPE, device=device),
        'rigs': lambda: by_rigs(checkpoint, RIGS, SHAPE, device=device),
    }
    try:
        kept = Predictor(checkpoint, device=device)
        about = {
            'device': device_name(kept.device),
            'threads': torch.get_num_threads(),
            'precision': kept.precision,
            'engine': kept.engine,
        }
        for name in [args.part] if args.part else parts:
            write(args.out, {**about, name: parts[name]()})
    except SartmError as error:
        print(f'scaling: error: {error}', file=sys.stderr)
        return 2
    return 0


def by_pixels(
    checkpoint: str | Path,
    sizes: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    *,
    device: str = 'auto',
    iterations: int = 5,
) -> list[dict[str, Any]]:
    """Time a checkpoint and untrained networks on images of several shapes.

    Args:
        checkpoint: file, or 'demo'.
        sizes: of the untrained networks.
        shapes: heights and widths of the images, the smallest first.
        device: as of `Predictor`.
        iterations: timed pairs of each.

    Returns:
        for each network and image: network, image, gflop, median_ms, peak_memory_mib (in a process
        of its own, see `benchmark.peak_memory_mib`) and exponent, the e of `time = a pixels^e` that
        goes best through that network's images, of three or more without the smallest, whose time
        has the largest part that is the same for all; None where there is one alone.
    """
    found: list[dict[str, Any]] = []
    ways: list[Callable[[], Any]] = []
    with ExitStack() as stack:
        files: dict[str, str | Path] = {Path(checkpoint).stem: checkpoint}
        files |= {size: stack.enter_context(untrained(size)) for size in sizes}
        for network, file in files.items():
            for shape in shapes:
                # One for each shape: a predictor keeps what belongs to that of its last image.
                ways.append(_way(Predictor(file, device=device), shape))
                took_s = min(timed(ways[-1]) for _ in range(2))
                found.append({'network': network, 'image': list(shape)})
                found[-1]['gflop'] = _gflop(file, shape)
                found[-1]['peak_memory_mib'] = _peak_memory_mib(file, shape, device)
                if took_s > LONGEST_S:
                    break
        for one, median_ms in zip(found, _medians_ms(ways, iterations), strict=True):
            one['median_ms'] = median_ms
    for network in files:
        same = [one for one in found if one['network'] == network]
        exponent = _exponent(same)
        for one in same:
            one['exponent'] = exponent
    return found


def by_classes(
    checkpoint: str | Path,
    counts: Sequence[int],
    shape: tuple[int, int],
    *,
    device: str = 'auto',
    iterations: int = 20,
) -> list[dict[str, Any]]:
    """Time a checkpoint that is given other numbers of classes, see `save_with_classes`.

    Returns:
        for each number: classes, labels_ms (median of labels alone) and confidence_ms (with the
        confidence of every pixel).
    """
    ways = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            file = Path(folder) / f'{count}.safetensors'
            save_with_classes(checkpoint, count, file)
            predictor = Predictor(file, device=device)
            ways += [_way(predictor, shape, confidence) for confidence in (False, True)]
    for way in ways:
        way()
    medians_ms = _medians_ms(ways, iterations)
    return [
        {'classes': count, 'labels_ms': labels_ms, 'confidence_ms': confidence_ms}
        for count, labels_ms, confidence_ms in zip(
            counts, medians_ms[::2], medians_ms[1::2], strict=True
        )
    ]


def save_with_classes(checkpoint: str | Path, count: int, path: Path) -> None:
    """Write a checkpoint with `count` classes instead of its own N: k has the weights of k mod N.

    Of equal classes the first is taken, so that labels remain areas, as those of a trained network
    are; what labels alone cost depends on that, and those of random weights are noise.
    """
    loaded = checkpoints.load(checkpoint)
    known = len(loaded.label_space)
    model = Sartm(loaded.config, count)
    state = {}
    for key, value in model.state_dict().items():
        origin = re.sub(r'(?<=hypernetworks_mlps\.)\d+', lambda at: str(int(at[0]) % known), key)
        state[key] = loaded.state[origin]
        if state[key].shape != value.shape:
            state[key] = state[key][torch.arange(count) % known]
    checkpoints.load_strictly(model, state, f'checkpoint {checkpoint}')
    names = tuple(f'class {index}' for index in range(count))
    checkpoints.save(path, model, LabelSpace('many', names, ((90, 90, 90),) * count), {})


def write(out: Path, measured: dict[str, Any]) -> None:
    """Lay what was measured over `scaling.json` of a folder, and draw all that is there then."""
    from sartm_model.scaling_plots import plots_png

    file = out / 'scaling.json'
    result = json.loads(file.read_text()) if file.is_file() else {}
    result |= measured
    write_file(file, json.dumps(result, indent=2) + '\n')
    write_file(out / 'scaling.png', plots_png(result))


def _way(
    predictor: Predictor, shape: tuple[int, int], confidence: bool = False
) -> Callable[[], Any]:
    rgb, thermal = images(*shape)[0]
    return lambda: predictor.predict(rgb, thermal, confidence=confidence)


def _medians_ms(ways: Sequence[Callable[[], Any]], iterations: int) -> list[float]:
    """Of each way; they run in turn."""
    times_s = [[timed(way) for way in ways] for _ in range(iterations)]
    return (np.median(times_s, axis=0) * 1e3).round(1).tolist()


def _gflop(file: str | Path, shape: tuple[int, int]) -> float:
    model = checkpoints.build(checkpoints.load(file))
    return round(checkpoints.count_flops(model, *shape) * 1e-9, 2)


def _peak_memory_mib(file: str | Path, shape: tuple[int, int], device: str) -> float:
    with running(1, file, shape, device) as rigs:
        return round(ask(rigs, 0.0)[0].peak_mib, 1)


def _exponent(found: Sequence[dict[str, Any]]) -> float | None:
    if len(found) < 2:
        return None
    fitted = found[1:] if len(found) > 2 else found
    pixels = [math.prod(one['image']) for one in fitted]
    times_ms = [one['median_ms'] for one in fitted]
    return round(float(np.polyfit(np.log(pixels), np.log(times_ms), 1)[0]), 2)


if __name__ == '__main__':
    sys.exit(main())
