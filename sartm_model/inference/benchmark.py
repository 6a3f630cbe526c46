"""`sartm benchmark`: where the time of a pair goes, and what each way to run it costs.

Times are of `Predictor.predict` as the node calls it, numpy in and numpy out. Random weights do as
much work as trained ones; that two ways give the same labels shows only with trained ones.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import PRECISIONS, Predictor
from sartm_model.inference.stage_clock import StageClock
from sartm_model.inference.transfer import download, upload
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.models.summary import count_flops
from sartm_model.utils.parallel import TwoStreams
from sartm_model.utils.text import first_line

WARM_UPS = 3
SAMPLES = 4
"""Pairs whose labels are compared."""

GRAPH = 'fp16 graph'
TWO_STREAMS = 'fp16 two streams graph'
"""Ways of `compare` on a GPU: the usual one, and what it is held against."""


def benchmark(
    checkpoint: str | Path,
    height: int,
    width: int,
    *,
    device: str = 'auto',
    precision: str = 'auto',
    iterations: int = 20,
) -> dict[str, Any]:
    """Time one checkpoint on pairs of one size.

    Args:
        checkpoint: file, or 'demo'.
        height, width: of both images, pixels.
        device, precision: as of `Predictor`.
        iterations: timed pairs.

    Returns:
        what was run; stages_ms: median and p99 in milliseconds of upload, preprocess, encoder,
        fusion, heads, postprocess and download, one operation after another; total_ms: of the
        whole, as the node runs it (a recorded graph on CUDA); peak_memory_mib: of the GPU's
        memory, or of the process's where there is none; gflop: of the network, a multiply-add
        counted as two; tflops and of_matrix_rate: those over the median, and as a share of what a
        product of two large matrices reaches on this device in this precision.

    Raises:
        SartmError: the checkpoint, the device or the size cannot be used.
    """
    predictor = Predictor(checkpoint, device=device, precision=precision)
    rgb, thermal = images(height, width)[0]
    if predictor.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(predictor.device)
    total_s = [timed(lambda: predictor.predict(rgb, thermal)) for _ in range(WARM_UPS + iterations)]
    peak_mib = peak_memory_mib(predictor.device)
    stages_s: dict[str, list[float]] = defaultdict(list)
    plain = Predictor(checkpoint, device=device, precision=precision, engine='eager')
    with _marked(plain) as run:
        for index in range(WARM_UPS + iterations):
            for stage, seconds in run(rgb, thermal).items():
                if index >= WARM_UPS:
                    stages_s[stage].append(seconds)
    model = plain.network.model.float()
    gflop = count_flops(model, height, width) * 1e-9
    total = _spread(total_s[WARM_UPS:])
    tflops = gflop / total['median']
    rate = matrix_tflops(predictor.device, PRECISIONS[predictor.precision])
    return {
        'checkpoint': str(checkpoint),
        'size': model.config.size,
        'input_scale': model.config.input_scale,
        'image': [height, width],
        'device': device_name(predictor.device),
        'precision': predictor.precision,
        'engine': predictor.engine,
        'threads': torch.get_num_threads(),
        'iterations': iterations,
        'stages_ms': {stage: _spread(seconds) for stage, seconds in stages_s.items()},
        'total_ms': total,
        'peak_memory_mib': round(peak_mib, 1),
        'gflop': round(gflop, 2),
        'tflops': round(tflops, 3),
        'matrix_tflops': round(rate, 3),
        'of_matrix_rate': round(tflops / rate, 3),
    }


def compare(
    checkpoint: str | Path, height: int, width: int, *, device: str = 'auto', iterations: int = 20
) -> dict[str, Any]:
    """Run every way there is on this device in turn, pair by pair, and hold it against fp32.

    Returns:
        device, image, iterations and variants: by name median_ms, p99_ms, ratio (its median by
        that of 'fp32', one operation after another with merged adapters) and agreement (share of
        pixels with the label that 'fp32' gives, on generated frames), or error, what kept it from
        running.
    """
    pairs = images(height, width)
    with ExitStack() as kept:
        ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {}
        failed: dict[str, str] = {}
        chosen = Predictor(checkpoint, device=device).device
        for name, build in _variants(checkpoint, chosen).items():
            try:
                way = kept.enter_context(build())
                for _ in range(WARM_UPS):
                    way(*pairs[0])
            except Exception as error:  # a compiler that is missing is a result too
                failed[name] = f'{type(error).__name__}: {first_line(error)[:200]}'
            else:
                ways[name] = way
        times_s: dict[str, list[float]] = defaultdict(list)
        for _ in range(iterations):
            for name, way in ways.items():
                times_s[name].append(timed(lambda way=way: way(*pairs[0])))  # type: ignore[misc]
        labels = {name: [way(*pair) for pair in pairs] for name, way in ways.items()}
    reference = float(np.median(times_s['fp32']))
    variants: dict[str, Any] = {}
    for name, seconds in times_s.items():
        spread = _spread(seconds)
        same = [
            (one == other).mean() for one, other in zip(labels[name], labels['fp32'], strict=True)
        ]
        variants[name] = {
            'median_ms': spread['median'],
            'p99_ms': spread['p99'],
            'ratio': round(float(np.median(seconds)) / reference, 3),
            'agreement': round(float(np.mean(same)), 5),
        }
    variants |= {name: {'error': text} for name, text in failed.items()}
    return {
        'checkpoint': str(checkpoint),
        'image': [height, width],
        'device': device_name(chosen),
        'threads': torch.get_num_threads(),
        'iterations': iterations,
        'variants': variants,
    }


@contextmanager
def untrained(size: str) -> Iterator[Path]:
    """A checkpoint of a size with random weights, while the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'{size}.safetensors'
        checkpoints.save(path, Sartm(ModelConfig(size=size), len(MFNET)), MFNET, {})
        yield path


def matrix_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """What a product of two large square matrices reaches, 10^12 operations a second."""
    side = 8192 if device.type == 'cuda' else 1024
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        one @ other
        if device.type == 'cuda':
            torch.cuda.synchronize(device)

    return 2e-12 * side**3 / min(timed(product) for _ in range(10))


def device_name(device: torch.device) -> str:
    """The GPU's own name, or the processor's."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return 'cpu'


def _variants(checkpoint: str | Path, device: torch.device) -> Mapping[str, Any]:
    """Name -> what builds the way so called: a context that gives a function of a pair."""

    def way(precision: str = 'fp32', engine: str = 'eager', change: Any = None) -> Any:
        @contextmanager
        def build() -> Iterator[Callable[[np.ndarray, np.ndarray], np.ndarray]]:
            predictor = Predictor(
                checkpoint, device=str(device), precision=precision, engine=engine
            )
            if change is not None:
                change(predictor)
            yield lambda rgb, thermal: predictor.predict(rgb, thermal).labels

        return build

    def unmerged(predictor: Predictor) -> None:
        model = checkpoints.build(checkpoints.load(checkpoint), merged=False)
        predictor.network.model = model.to(predictor.device)

    def channels_last(predictor: Predictor) -> None:
        predictor.network.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compiled(predictor: Predictor) -> None:
        model = predictor.network.model
        model.forward_logits = torch.compile(model.forward_logits)  # type: ignore[method-assign]

    def two_streams(predictor: Predictor) -> None:
        predictor.network.model.enable_parallel(TwoStreams(predictor.device))

    found = {'fp32': way(), 'fp32 unmerged': way(change=unmerged)}
    found['fp32 channels last'] = way(change=channels_last)
    if device.type == 'cpu':
        found['fp32 compiled'] = way(change=compiled)
        return found | {'fp32 parallel': way(engine='parallel'), 'bf16': way('bf16')}
    for precision in ('fp16', 'bf16'):
        found[precision] = way(precision)
        found[f'{precision} graph'] = way(precision, 'graph')
    found[TWO_STREAMS] = way('fp16', 'graph', two_streams)
    found['fp16 channels last graph'] = way('fp16', 'graph', channels_last)
    found['fp16 compiled'] = way('fp16', change=compiled)
    found['fp16 compiled graph'] = way('fp16', 'graph', compiled)
    return found


def _first_mark(clock: StageClock, stage: str) -> None:
    if stage == 'upload':
        clock.mark('preprocess')


@contextmanager
def _marked(
    predictor: Predictor,
) -> Iterator[Callable[[np.ndarray, np.ndarray], dict[str, float]]]:
    """A function that runs a pair one operation after another and gives the seconds by stage."""
    network, model = predictor.network, predictor.network.model
    marks: list[Callable[[str], None]] = []
    last = {'mean': model.auxiliary_head, 'auxiliary': model.auxiliary_head}
    ends = {
        'encoder': model.encoder,
        'fusion': model.fusions[-1],
        'heads': last.get(model.config.prediction, model.mask_decoder),
    }

    def run(rgb: np.ndarray, thermal: np.ndarray) -> dict[str, float]:
        clock = StageClock(predictor.device)
        marks[:] = [clock.mark]
        settings, asked = predictor.ask(rgb, thermal, None)
        colour, counts, frame_params = upload([rgb, thermal, settings], predictor.device)
        clock.mark('upload')
        assert frame_params is not None
        # Of the network's own two marks the second falls where its heads end.
        planes = network(colour, counts, frame_params, asked, partial(_first_mark, clock))
        clock.mark('postprocess')
        download(planes)
        return clock.seconds('download')

    with ExitStack() as hooks:
        for stage, module in ends.items():
            handle = module.register_forward_hook(
                lambda *_, stage=stage: marks[0](stage)  # type: ignore[misc]
            )
            hooks.callback(handle.remove)
        yield run


def images(height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Generated pairs of a size. Raises SartmError where it is too small."""
    from sartm_model.data.synthetic import render

    if min(height, width) < 32:
        raise SartmError(f'the size is {width}x{height} pixels; expected 32 or more each way')
    frames = [render(seed, height, width) for seed in range(SAMPLES)]
    return [
        (frame.rgb, frame.thermal)
        for frame in frames
        if frame.rgb is not None and frame.thermal is not None
    ]


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a piece of work takes."""
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _spread(seconds: list[float]) -> dict[str, float]:
    median, p99 = (np.percentile(seconds, (50, 99)) * 1e3).round(3).tolist()
    return {'median': median, 'p99': p99}


def peak_memory_mib(device: torch.device) -> float:
    """The most this process has held: of the GPU's memory, or of the host's where there is none."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Not `getrusage`, whose figure a process starts with that of the one that started it.
    status = Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) / 2**10
