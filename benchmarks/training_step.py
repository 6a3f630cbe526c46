"""Time a step of a training: `python -m benchmarks.training_step --config FILE key=value ...`.

    python -m benchmarks.training_step --config config/train/mfnet.yaml \
        --variant '' --variant compile=true loss.language=0 "sam2_weights=''" data.workers=14

Each variant trains on generated scenes for a few steps and for more. The difference of the times,
divided by that of the steps, is the time of a step: it has neither start nor measurement, and the
loader only if that does not keep up. A first short training, which is not counted, leaves compiled
code in its cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sartm_model.errors import SartmError
from sartm_model.training.run import train

SCENES = (
    'data.train=[{dataset: synthetic, split: train, frames: 48}]',
    'data.val={dataset: synthetic, split: val, frames: 1}',
    'data.cache=true',
)


def step_s(config: Path, overrides: Sequence[str], few: int, many: int) -> float:
    """Return the seconds of a step.

    Args:
        config: of the training; its data are replaced.
        overrides: settings that replace those of the file.
        few, many: steps of the trainings whose times are compared.

    Raises:
        SartmError: the training cannot be done.
    """
    seconds = []
    for steps in (few, few, many):
        length = (f'steps={steps}', f'val_every={steps}')
        with tempfile.TemporaryDirectory() as out:
            begun = time.perf_counter()
            train(config, Path(out), (*SCENES, *overrides, *length))
            seconds.append(time.perf_counter() - begun)
    return (seconds[2] - seconds[1]) / (many - few)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line of JSON for each variant; return the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.training_step',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', metavar='FILE', type=Path, required=True)
    parser.add_argument(
        '--variant', metavar='KEY=VALUE', action='append', dest='variants',
        help='settings that a variant has, with spaces between them, or none; ratios are to the '
        'first variant',
    )  # fmt: skip
    parser.add_argument('--steps', metavar='N', type=int, nargs=2, default=[20, 120])
    parser.add_argument(
        'overrides', metavar='key=value', nargs='*', help='settings of all variants'
    )
    args = parser.parse_intermixed_args(argv)
    first = None
    for variant in args.variants or ['']:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            found = step_s(args.config, [*args.overrides, *variant.split()], *args.steps)
        except SartmError as error:
            print(f'training_step: {error}', file=sys.stderr)
            return 2
        first = first or found
        result = {'variant': variant, 'ms': 1e3 * found, 'ratio': found / first}
        if torch.cuda.is_available():
            result['memory_mib'] = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps(result), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
