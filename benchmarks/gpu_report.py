"""`make bench-gpu`: on a machine with a GPU, check the results and write every figure down.

    python -m benchmarks.gpu_report --out gpu_report

Leaves `table.md`, `results.json` and `profile.txt`, the operations that take the time of the sizes
that miss their target. Is meant to take less than eight minutes on one H200: a minute for each of
four compilations, half of which torch remembers, and seconds for the rest. What fails is written
down and the rest goes on. The exit status is 1 where something failed, but for want of memory, or
labels in half precision differ on more pixels than they may; 2 where there is no GPU.
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

from sartm_model.inference.benchmark import (
    GRAPH,
    TWO_STREAMS,
    benchmark,
    compare,
    generate_pairs,
    untrained,
)
from sartm_model.inference.predictor import Predictor
from sartm_model.utils.files import write_file

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
"""Median of a pair, numpy to numpy, on one H200."""
TARGETS_MIB = {'base_plus': 2048}
"""Peak of the GPU's memory."""

COMPARED = (('demo', 480, 640), ('tiny', 480, 640))
"""Runs whose ways are held against each other; each compilation takes a minute."""

COLUMNS = (
    *('size', 'image', 'precision', 'median ms', 'p99 ms', 'target ms'),
    *('memory MiB', 'at most MiB', 'TFLOP/s', 'of matrix rate'),
)

QUESTIONS = (('one batch of both modalities', GRAPH, 'a stream for each', TWO_STREAMS),)
"""Two names and ways each; the table says which took less time."""

AGREEMENT = 0.999
"""Share of pixels on which fp16 must give the label of fp32, with trained weights."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module."""
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
    """Measure and write the files named above.

    Args:
        out: folder for them.
        device: as of `Predictor`.
        runs: size, or 'demo', height and width of each.
        compared: likewise, of which every way is run.
        iterations: timed pairs a run.

    Returns:
        torch, agreement (None where it could not be found out), failed (what raised, but for want
        of memory), runs and compared, as in `results.json`.
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
        except Exception as error:  # one that never ran there may fail in its own way
            found['error'] = _first_line(error)
            failed.append(f'{size} at {height}x{width}: {found["error"]}')
        found |= {'checkpoint': size, 'image': [height, width]}
        found['target_ms'] = TARGETS_MS.get((size, height, width))
        found['target_mib'] = TARGETS_MIB.get(size)
        result['runs'].append(found)
        _write(out, result, profiles)  # as far as it got
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
    return f'{type(error).__name__}: {error}'.splitlines()[0][:200]


def agreement(device: str) -> float:
    """Share of pixels on which `demo` in half precision gives the label of fp32, generated scenes.

    Half is fp16 on a GPU and bf16 on a CPU.
    """
    half = 'bf16' if device == 'cpu' else 'fp16'
    full, rounded = (Predictor('demo', device=device, precision=p) for p in ('fp32', half))
    same = [
        float((full.predict(*pair).labels == rounded.predict(*pair).labels).mean())
        for pair in generate_pairs(480, 640)
    ]
    return sum(same) / len(same)


def profile(checkpoint: str | Path, height: int, width: int) -> str:
    """The twenty operations of one pair that take the device the longest."""
    from torch.profiler import ProfilerActivity

    predictor = Predictor(checkpoint, device='cuda', engine='eager')
    pair = generate_pairs(height, width)[0]
    predictor.predict(*pair)
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        predictor.predict(*pair)
    return found.key_averages().table(sort_by='self_cuda_time_total', row_limit=20)


def table(result: Mapping[str, Any]) -> str:
    """The report in Markdown."""
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
        lines += ['| way | median ms | ratio | agreement |', '|---|---|---|---|']
        for name, way in found['variants'].items():
            figures = [way.get('error', way.get('median_ms')), way.get('ratio', '')]
            figures.append(way.get('agreement', ''))
            lines.append(f'| {name} | {" | ".join(map(str, figures))} |')
        lines += ['', *answers(found['variants'])]
    return '\n'.join(lines) + '\n'


def answers(variants: Mapping[str, Any]) -> list[str]:
    """For each of `QUESTIONS` which of its ways took less time, where both ran."""
    lines = []
    for name, way, other_name, other in QUESTIONS:
        medians = [variants.get(one, {}).get('median_ms') for one in (way, other)]
        if None not in medians:
            faster, slower = (name, other_name) if medians[0] <= medians[1] else (other_name, name)
            lines.append(f'Faster: {faster}, {min(medians)} ms; {slower}, {max(medians)} ms.')
    return lines


def _write(out: Path, result: Mapping[str, Any], profiles: Sequence[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / 'results.json', json.dumps(result, indent=2))
    write_file(out / 'table.md', table(result))
    if profiles:
        write_file(out / 'profile.txt', '\n\n'.join(profiles))


if __name__ == '__main__':
    sys.exit(main())
