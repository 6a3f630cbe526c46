"""`sartm benchmark`: how long a pair takes, stage by stage.

All times are of `Predictor.predict` as the node calls it, from numpy arrays to numpy arrays. Random
weights do as much work as trained ones.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.choices import PRECISIONS
from sartm_model.inference.pipeline import OutputRequest, pack_frame_params
from sartm_model.inference.predictor import Predictor
from sartm_model.inference.stage_clock import StageClock
from sartm_model.inference.transfer import frame_to_device, to_host
from sartm_model.labels import MFNET
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.models.summary import count_flops

WARM_UPS = 3


def benchmark(
    checkpoint: str | Path,
    height: int,
    width: int,
    *,
    device: str = 'auto',
    precision: str = 'auto',
    engine: str = 'auto',
    iterations: int = 20,
) -> dict[str, Any]:
    """Time one checkpoint on pairs of one size.

    Args:
        checkpoint: file, or one of `checkpoint.SHIPPED`.
        height, width: of both images, pixels.
        device, precision, engine: see `Predictor`.
        iterations: timed pairs.

    Returns:
        What was run, and:
        start_s: seconds from the checkpoint to the first labels.
        total_ms: median and p99 of a whole pair, in milliseconds.
        stages_ms: the same of upload, preprocess, encoder, fusion, heads (network in a family
        without `STAGES`), postprocess and download with the engine 'eager'.
        peak_memory_mib: of the GPU's memory, or of the process where there is no GPU.
        gflop: of the network, a multiply-add counted as two.
        tflops, of_matrix_rate: gflop over the median time, and its share of what a product of two
        large matrices reaches on this device in this precision (matrix_tflops).

    Raises:
        SartmError: the checkpoint, the device or the size cannot be used.
    """
    begun_s = time.perf_counter()
    predictor = Predictor(checkpoint, device=device, precision=precision, engine=engine)
    loading_s = time.perf_counter() - begun_s
    images = generate_frames(height, width, predictor.modalities)[0]
    if predictor.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(predictor.device)
    runs = range(WARM_UPS + iterations)
    first_s, *total_s = [measure_s(lambda: predictor.predict(images, copy=False)) for _ in runs]
    total_s = total_s[WARM_UPS - 1 :]
    peak_mib = peak_memory_mib(predictor.device)
    eager = Predictor(checkpoint, device=device, precision=precision, engine='eager')
    stages_s: dict[str, list[float]] = defaultdict(list)
    for frame_stages_s in [measure_stages_s(eager, images) for _ in runs][WARM_UPS:]:
        for stage, seconds in frame_stages_s.items():
            stages_s[stage].append(seconds)
    model = checkpoints.build(checkpoints.load(checkpoint)).to('meta')
    gflop = count_flops(model, height, width) * 1e-9
    total = median_and_p99(total_s)
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
        'start_s': round(loading_s + first_s, 2),
        'stages_ms': {stage: median_and_p99(seconds) for stage, seconds in stages_s.items()},
        'total_ms': total,
        'peak_memory_mib': round(peak_mib, 1),
        'gflop': round(gflop, 2),
        'tflops': round(tflops, 3),
        'matrix_tflops': round(rate, 3),
        'of_matrix_rate': round(tflops / rate, 3),
    }


def measure_stages_s(predictor: Predictor, images: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Run a frame with an eager predictor and return the seconds of its stages."""
    pipeline, model = predictor.pipeline, predictor.pipeline.model
    clock = StageClock(predictor.device if predictor.device.type == 'cuda' else None)
    last_modules = {stage: model.get_submodule(name) for stage, name in model.STAGES.items()}
    if last_modules:
        last_modules['heads'] = model.head(model.predicted_heads[-1])

    def on_stage_end(stage: str) -> None:
        if stage != 'network' or not last_modules:  # else the last head ends the network
            clock.end_stage(stage)

    with ExitStack() as hooks:
        for stage, module in last_modules.items():
            handle = module.register_forward_hook(
                lambda *_, stage=stage: clock.end_stage(stage)  # type: ignore[misc]
            )
            hooks.callback(handle.remove)
        tensors, params = frame_to_device(images, pack_frame_params(), predictor.device)
        clock.end_stage('upload')
        outputs = pipeline(tensors, params, OutputRequest(), on_stage_end)
        clock.end_stage('postprocess')
        to_host(outputs)
        return clock.stages_s('download')


@contextmanager
def untrained(size: str) -> Iterator[Path]:
    """Write a checkpoint of a size with random weights, and delete it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'{size}.safetensors'
        model = registry.build(ModelConfig(size=size), len(MFNET))
        checkpoints.save(path, model, MFNET, {})
        yield path


def generate_frames(
    height: int, width: int, modalities: Sequence[str], count: int = 1
) -> list[dict[str, np.ndarray]]:
    """Generate raw images of a size by modality: of a scene, or noise where scenes have none.

    Raises SartmError where the size is too small.
    """
    from sartm_model.data.synthetic import render
    from sartm_model.data.synthetic.cameras import GIVEN

    if min(height, width) < 32:
        raise SartmError(f'the size is {width}x{height} pixels; expected 32 or more each way')
    rng = np.random.default_rng(0)
    drawn = [name for name in modalities if name in GIVEN] or ['rgb']
    frames = []
    for seed in range(count):
        frame = render(seed, height, width, modalities=drawn)
        images = {}
        for name in modalities:
            blank = MODALITIES[name].blank(height, width)
            noise = rng.integers(0, 256, blank.shape).astype(blank.dtype)
            images[name] = frame.images.get(name, noise)
        frames.append(images)
    return frames


def measure_s(work: Callable[[], Any]) -> float:
    """Run `work` and return the seconds that it takes."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def median_and_p99(seconds: list[float]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds."""
    median, p99 = (np.percentile(seconds, (50, 99)) * 1e3).round(3).tolist()
    return {'median': median, 'p99': p99}


def matrix_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the rate of a product of two large square matrices, 10^12 operations a second."""
    side = 8192 if device.type == 'cuda' else 1024
    first, second = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        first @ second
        if device.type == 'cuda':
            torch.cuda.synchronize(device)

    return 2e-12 * side**3 / min(measure_s(multiply) for _ in range(10))


def device_name(device: torch.device) -> str:
    """Return the GPU's own name, or the processor's."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return 'cpu'


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory that was in use: of the GPU, or of this process on a CPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Not `getrusage`, whose figure a process inherits from the one that started it.
    status = Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) / 2**10
