"""`make bench-gpu`: compare precisions on a GPU and measure every size and engine there.

    python -m benchmarks.gpu_report --out gpu_report

Writes `table.md`, `results.json` and `profile.txt`, which lists the slowest operations of the sizes
that miss their target. It should take less than eight minutes on one H200, most of it for four
compilations. Whatever fails is reported, and the rest goes on. The exit status is 1 where
something failed for another reason than lack of memory, or where labels in half precision differ on
too many pixels; 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sartm_model.inference.benchmark import benchmark, generate_pairs, untrained
from sartm_model.inference.predictor import Predictor
from sartm_model.inference.variants import compare
from sartm_model.utils.files import write_file
from sartm_model.utils.text import first_line

RUNS = (
    ('demo', 480, 640),
    ('tiny', 480, 640),
    ('small', 480, 640),
    ('base_plus', 480, 640),
    ('large', 480, 640),
    ('base_plus', 1280, 1280),
)
TARGETS_MS = {
    ('tiny', 480, 640): 2.5,
    ('base_plus', 480, 640): 4.0,
    ('large', 480, 640): 8.0,
    ('base_plus', 1280, 1280): 12.0,
}
"""Median of a pair on one H200, numpy to numpy, by size, height and width."""

TARGETS_MIB = {'base_plus': 2048}
"""Peak of the GPU's memory, by size."""

COMPARED = (('demo', 480, 640), ('tiny', 480, 640))
"""Runs of which every variant is measured; each compilation takes a minute."""

COLUMNS = (
    *('size', 'image', 'precision', 'median ms', 'p99 ms', 'target ms'),
    *('memory MiB', 'at most MiB', 'TFLOP/s', 'of matrix rate'),
)

AGREEMENT = 0.999
"""Share of the pixels on which fp16 must give the label of fp32, with trained weights."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of this module and return the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu_report', description='Check and time SARTM on a GPU.'
    )
    parser.add_argument('--out', metavar='DIR', type=Path, default=Path('gpu_report'))
    parser.add_argument('--iterations', metavar='N', type=int, default=100)
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print('gpu_report: error: torch sees no CUDA device', file=sys.stderr)
        return 2
    result = report(args.out, 'cuda', RUNS, COMPARED, args.iterations)
    print((args.out / 'table.md').read_text())
    agreed = result['agreement'] is not None and result['agreement'] >= AGREEMENT
    return 0 if agreed and not result['failed'] else 1


def report(
    out: Path,
    device: str,
    runs: Sequence[tuple[str, int, int]],
    compared: Sequence[tuple[str, int, int]],
    iterations: int,
) -> dict[str, Any]:
    """Measure everything and write the files.

    Args:
        out: folder for them.
        device: see `Predictor`.
        runs: size or 'demo', height and width of each benchmark.
        compared: the same of each comparison of the variants.
        iterations: timed pairs a run.

    Returns:
        The contents of `results.json`: torch, agreement (None where it failed), failed (what raised
        for another reason than lack of memory), runs and compared.
    """
    failed: list[str] = []
    result: dict[str, Any] = {'torch': torch.__version__, 'failed': failed}
    result |= {'agreement': None, 'runs': [], 'compared': []}
    try:
        result['agreement'] = agreement(device)
    except Exception as error:
        failed.append(f'agreement: {_first_line(error)}')
    profiles = []
    for size, height, width in runs:
        found: dict[str, Any] = {}
        try:
            with nullcontext(size) if size == 'demo' else untrained(size) as checkpoint:
                found = benchmark(checkpoint, height, width, device=device, iterations=iterations)
                target = TARGETS_MS.get((size, height, width))
                if target and found['total_ms']['median'] >= target:
                    title = f'{size} at {height}x{width}'
                    profiles.append(f'{title}\n{profile(checkpoint, height, width)}')
        except torch.OutOfMemoryError as error:
            found['error'] = _first_line(error)
        except Exception as error:
            found['error'] = _first_line(error)
            failed.append(f'{size} at {height}x{width}: {found["error"]}')
        found |= {'checkpoint': size, 'image': [height, width]}
        found['target_ms'] = TARGETS_MS.get((size, height, width))
        found['target_mib'] = TARGETS_MIB.get(size)
        result['runs'].append(found)
        _write(out, result, profiles)  # what is measured so far
    for size, height, width in compared:
        try:
            with nullcontext(size) if size == 'demo' else untrained(size) as checkpoint:
                found = compare(checkpoint, height, width, device=device, iterations=iterations)
            result['compared'].append({**found, 'checkpoint': size})
        except Exception as error:
            failed.append(f'{size} compared: {_first_line(error)}')
        _write(out, result, profiles)
    return result


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {first_line(error)}'[:200]


def agreement(device: str) -> float:
    """Return the share of the pixels on which `demo` gives the same label in half precision.

    It is compared with fp32 on generated scenes; half precision is fp16 on a GPU, bf16 on a CPU.
    """
    half = 'bf16' if device == 'cpu' else 'fp16'
    full, rounded = (Predictor('demo', device=device, precision=p) for p in ('fp32', half))
    same = [
        float((full.predict(*pair).labels == rounded.predict(*pair).labels).mean())
        for pair in generate_pairs(480, 640, count=4)
    ]
    return sum(same) / len(same)


def profile(checkpoint: str | Path, height: int, width: int) -> str:
    """Return a table of the twenty operations that take the GPU the longest for one pair."""
    from torch.profiler import ProfilerActivity

    predictor = Predictor(checkpoint, device='cuda', engine='eager')
    pair = generate_pairs(height, width)[0]
    predictor.predict(*pair)
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        predictor.predict(*pair)
    return found.key_averages().table(sort_by='self_cuda_time_total', row_limit=20)


def table(result: Mapping[str, Any]) -> str:
    """Return the report in Markdown."""
    same = 'an unknown share' if result['agreement'] is None else f'{result["agreement"]:.3%}'
    lines = [
        f'torch {result["torch"]}; labels of half precision and fp32 agree on {same} of the pixels '
        f'(at least {AGREEMENT:.1%}).',
        '',
        *(f'Failed: {text}\n' for text in result['failed']),
        f'| {" | ".join(COLUMNS)} |',
        '|---' * len(COLUMNS) + '|',
    ]
    for run in result['runs']:
        image = 'x'.join(map(str, run['image']))
        if 'total_ms' not in run:
            lines.append(
                f'| {run["checkpoint"]} | {image} | {run["error"]} {"| " * (len(COLUMNS) - 3)}|'
            )
            continue
        total = run['total_ms']
        cells = [run['checkpoint'], image, run['precision'], total['median'], total['p99']]
        cells += [
            run['target_ms'] or '',
            run['peak_memory_mib'],
            run['target_mib'] or '',
            run['tflops'],
        ]
        lines.append(f'| {" | ".join(map(str, [*cells, run["of_matrix_rate"]]))} |')
    for found in result['compared']:
        image = 'x'.join(map(str, found['image']))
        lines += ['', f'{found["checkpoint"]} at {image} on {found["device"]}:', '']
        lines += ['| variant | median ms | ratio | agreement |', '|---|---|---|---|']
        for name, variant in found['variants'].items():
            figures = [variant.get('error', variant.get('median_ms'))]
            figures += [variant.get('ratio', ''), variant.get('agreement', '')]
            lines.append(f'| {name} | {" | ".join(map(str, figures))} |')
    return '\n'.join(lines) + '\n'


def _write(out: Path, result: Mapping[str, Any], profiles: Sequence[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / 'results.json', json.dumps(result, indent=2))
    write_file(out / 'table.md', table(result))
    if profiles:
        write_file(out / 'profile.txt', '\n\n'.join(profiles))


if __name__ == '__main__':
    sys.exit(main())
