"""`sartm benchmark`: measure how long a network takes."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from sartm_model.cli.options import (
    Verbs,
    add_json,
    add_model,
    add_size,
    add_verb,
    positive,
)
from sartm_model.cli.output import emit_json
from sartm_model.config import SIZES
from sartm_model.errors import SartmError


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = add_verb(
        verbs,
        'benchmark',
        run,
        'Time a checkpoint, or random weights of a size, stage by stage. --compare runs every\n'
        'engine and precision of this device in turn and gives the ratios of their times and the\n'
        'share of the pixels on which their labels agree. On a machine that does other work at\n'
        'the same time, only the ratios mean something.',
        'sartm benchmark --checkpoint demo\n'
        'sartm benchmark --size base_plus --height 1280 --width 1280 --iterations 3\n'
        'sartm benchmark --checkpoint demo --compare --json compare.json',
    )
    add_model(verb, 'a .safetensors checkpoint, demo or demo_depth (default: demo)')
    verb.add_argument('--size', choices=SIZES, help='random weights of this size instead')
    add_size(verb, 'the images')
    verb.add_argument(
        '--iterations',
        metavar='N',
        type=positive,
        default=20,
        help='predictions to time (default: %(default)s)',
    )
    verb.add_argument(
        '--engine',
        choices=('auto', 'eager', 'graph', 'parallel', 'compile'),
        default='auto',
        help='how the network is run: auto as the node does it by default, or one operation after '
        'another (eager), a CUDA graph, independent parts in parallel on a CPU, or what '
        'torch.compile makes of it (default: auto)',
    )
    verb.add_argument('--compare', action='store_true', help='compare every engine and precision')
    add_json(verb)


def run(args: argparse.Namespace) -> None:
    """Print the times of a network, or of every way to run it."""
    from sartm_model.inference.benchmark import benchmark, untrained
    from sartm_model.inference.variants import compare

    if args.compare and (args.precision, args.engine) != ('auto', 'auto'):
        raise SartmError(
            '--compare runs every precision and engine in turn; leave --precision and --engine out'
        )
    source = untrained(args.size) if args.size else nullcontext(args.checkpoint)
    with source as checkpoint:
        if args.compare:
            result = compare(
                checkpoint,
                args.height,
                args.width,
                device=args.device,
                iterations=args.iterations,
            )
        else:
            result = benchmark(
                checkpoint,
                args.height,
                args.width,
                device=args.device,
                precision=args.precision,
                engine=args.engine,
                iterations=args.iterations,
            )
    emit_json({**result, 'checkpoint': args.size or str(args.checkpoint)}, args.json)
