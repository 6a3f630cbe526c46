"""`make bench-gpu`: compare precisions on a GPU and measure sizes and ways to run them there.

    python -m benchmarks.gpu_report --out gpu_report

Writes `table.md`, `results.json` and `profile.txt`, which lists the kernels of a pair by their time
before and after the rearrangements for inference. 'Before' is the variant `fp16 plain graph`, which
runs in the same process. The engine 'compile' is compared, too, and takes most of the time. Starts
are timed in processes of their own, those of 'compile' without and with what an earlier start has
compiled.

Whatever fails is reported, and the rest goes on. The exit status is 1 where something failed for
another reason than lack of memory, or where labels in half precision differ on too many pixels; 2
where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks.start_time import start_s
from sartm_model.inference.benchmark import benchmark, generate_frames, untrained
from sartm_model.inference.predictor import Predictor
from sartm_model.inference.variants import build_variants, compare
from sartm_model.utils.files import write_file
from sartm_model.utils.text import first_line

RUNS = (
    ('demo', 480, 640),
    ('lite', 480, 640),
    ('tiny', 480, 640),
    ('base_plus', 480, 640),
    ('base_plus', 1280, 1280),
    ('large', 480, 640),
)
TARGETS_MS = {
    ('lite', 480, 640): 1.5,
    ('tiny', 480, 640): 2.5,
    ('base_plus', 480, 640): 4.0,
    ('large', 480, 640): 8.0,
    ('base_plus', 1280, 1280): 12.0,
}
"""Median of a pair on one H200, numpy to numpy, by size, height and width."""

TARGETS_MIB = {'base_plus': 2048}
"""Peak of the GPU's memory, by size."""

BEFORE_AND_AFTER = ('fp16 plain graph', 'fp16 graph')
LAYOUTS = ('fp16 one stream graph', 'fp16 channels first graph')
COMPILED = 'fp16 compile'

Run = tuple[str, int, int]
"""Size or 'demo', height and width."""

COMPARED: dict[Run, Sequence[str]] = {
    ('lite', 480, 640): (*BEFORE_AND_AFTER, *LAYOUTS, COMPILED),
    ('tiny', 480, 640): (*BEFORE_AND_AFTER, *LAYOUTS, COMPILED),
    ('base_plus', 480, 640): (*BEFORE_AND_AFTER, *LAYOUTS),
    ('base_plus', 1280, 1280): (*BEFORE_AND_AFTER, COMPILED),
    ('large', 480, 640): BEFORE_AND_AFTER,
}
"""Variants of each run. They are compared with the first; the first two are also profiled."""

STARTS = {('tiny', 480, 640): ('auto', 'compile', 'compile')}
"""Engines that are started one after the other."""

TOP_KERNELS = 25
"""Rows of a profile."""

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
    result = report(args.out, 'cuda', RUNS, COMPARED, STARTS, args.iterations)
    print((args.out / 'table.md').read_text())
    agreed = result['agreement'] is not None and result['agreement'] >= AGREEMENT
    return 0 if agreed and not result['failed'] else 1


def report(
    out: Path,
    device: str,
    runs: Sequence[Run],
    compared: Mapping[Run, Sequence[str]],
    starts: Mapping[Run, Sequence[str]],
    iterations: int,
) -> dict[str, Any]:
    """Measure everything and write the files.

    Args:
        out: folder for them.
        device: see `Predictor`.
        runs: of the benchmark.
        compared: as `COMPARED`.
        starts: as `STARTS`.
        iterations: timed pairs a run.

    Returns:
        The contents of `results.json`: torch, agreement (None where it failed), failed (what raised
        for another reason than lack of memory), runs, compared and starts.
    """
    failed: list[str] = []
    result: dict[str, Any] = {'torch': torch.__version__, 'failed': failed}
    result |= {'agreement': None, 'runs': [], 'compared': [], 'starts': []}
    try:
        result['agreement'] = agreement(device)
    except Exception as error:
        failed.append(f'agreement: {_first_line(error)}')
    profiles: list[str] = []
    for size, height, width in runs:
        found: dict[str, Any] = {}
        try:
            with _checkpoint(size) as checkpoint:
                found = benchmark(checkpoint, height, width, device=device, iterations=iterations)
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
    for (size, height, width), names in compared.items():
        try:
            with _checkpoint(size) as checkpoint:
                found = compare(
                    checkpoint,
                    height,
                    width,
                    device=device,
                    iterations=iterations,
                    names=names,
                    reference=names[0],
                )
                result['compared'].append({**found, 'checkpoint': size})
                _write(out, result, profiles)
                variants = found['variants']
                errors = {
                    name: variants[name]['error'] for name in names if 'error' in variants[name]
                }
                failed += [
                    f'{size} compared, {name}: {error}'
                    for name, error in errors.items()
                    if not error.startswith(torch.OutOfMemoryError.__name__)
                ]
                for name in (name for name in names[:2] if name not in errors):
                    kernels = profile(checkpoint, name, height, width, device)
                    profiles.append(f'{size} at {height}x{width}, {name}\n{kernels}')
        except Exception as error:
            text = _first_line(error)
            if torch.OutOfMemoryError in (type(error), type(error.__cause__)):
                found = {'image': [height, width], 'device': device, 'checkpoint': size}
                result['compared'].append({**found, 'variants': {names[0]: {'error': text}}})
            else:
                failed.append(f'{size} compared: {text}')
        _write(out, result, profiles)
    for (size, height, width), engines in starts.items():
        found = {'checkpoint': size, 'image': [height, width]}
        try:
            with _checkpoint(size) as checkpoint, tempfile.TemporaryDirectory() as cache:
                found['starts'] = [
                    [engine, start_s(checkpoint, engine, height, width, device, Path(cache))]
                    for engine in engines
                ]
            result['starts'].append(found)
        except Exception as error:
            failed.append(f'{size} started: {_first_line(error)}')
        _write(out, result, profiles)
    return result


def _checkpoint(size: str) -> AbstractContextManager[str | Path]:
    return nullcontext(size) if size == 'demo' else untrained(size)


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {first_line(error)}'[:200]


def agreement(device: str) -> float:
    """Return the share of the pixels on which `demo` gives the same label in half precision.

    It is compared with fp32 on generated scenes; half precision is fp16 on a GPU, bf16 on a CPU.
    """
    half = 'bf16' if device == 'cpu' else 'fp16'
    full, rounded = (Predictor('demo', device=device, precision=p) for p in ('fp32', half))
    same = [
        float((full.predict(images).labels == rounded.predict(images).labels).mean())
        for images in generate_frames(480, 640, full.modalities, count=4)
    ]
    return sum(same) / len(same)


def profile(checkpoint: str | Path, name: str, height: int, width: int, device: str) -> str:
    """Return the kernels of one pair by their time, and how many of them there are.

    On a CPU, which has no kernels, these are torch's operations.

    Args:
        checkpoint: file, or one of `checkpoint.SHIPPED`.
        name: of the variant.
        height, width: of the images.
        device: 'cuda' or 'cpu'.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    builders = build_variants(checkpoint, torch.device(device))
    predictor = builders[name]()
    images = generate_frames(height, width, predictor.modalities)[0]
    for _ in range(3):
        predictor.predict(images)
    activity, kind, time_us = {
        'cuda': (ProfilerActivity.CUDA, DeviceType.CUDA, 'self_device_time_total'),
        'cpu': (ProfilerActivity.CPU, DeviceType.CPU, 'self_cpu_time_total'),
    }[device]
    with torch.profiler.profile(activities=[activity]) as found:
        predictor.predict(images)
    rows = sorted(
        (
            (getattr(event, time_us), event.count, event.key)
            for event in found.key_averages()
            if event.device_type == kind
        ),
        reverse=True,
    )
    total_us, count = sum(row[0] for row in rows), sum(row[1] for row in rows)
    lines = [f'{total_us / 1e3:9.3f} ms {count:5} all']
    lines += [f'{us / 1e3:9.3f} ms {n:5} {key[:120]}' for us, n, key in rows[:TOP_KERNELS]]
    return '\n'.join(lines)


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
    for found in result['starts']:
        image = 'x'.join(map(str, found['image']))
        texts = [f'{engine} {seconds:.1f} s' for engine, seconds in found['starts']]
        lines += ['', f'{found["checkpoint"]} at {image}, starts in turn: {", ".join(texts)}.']
    return '\n'.join(lines) + '\n'


def _write(out: Path, result: Mapping[str, Any], profiles: Sequence[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / 'results.json', json.dumps(result, indent=2))
    write_file(out / 'table.md', table(result))
    if profiles:
        write_file(out / 'profile.txt', '\n\n'.join(profiles))


if __name__ == '__main__':
    sys.exit(main())
