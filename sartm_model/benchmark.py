"""Size and speed of the network: `make bench`, or `python -m sartm_model.benchmark --help`.

Times are of `Predictor.predict` as the node calls it, numpy in and numpy out. Weights are random:
they do not change the amount of work.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartm_model import checkpoint as checkpoints
from sartm_model.config import SIZES, ModelConfig
from sartm_model.labels import MFNET
from sartm_model.network import Sartm
from sartm_model.predictor import Predictor

WARM_UP = 3


def measure(size: str, height: int, width: int, device: str, iterations: int) -> dict[str, Any]:
    """Parameter counts of a size and its time a pair, in milliseconds."""
    model = Sartm(ModelConfig(size=size), len(MFNET))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'{size}.safetensors'
        checkpoints.save(path, model, MFNET, {})
        predictor = Predictor(path, device=device)
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    thermal = rng.integers(0, 256, (height, width), np.uint8)
    times_ms = []
    for _ in range(WARM_UP + iterations):
        begun = time.perf_counter()
        predictor.predict(rgb, thermal)
        times_ms.append(1e3 * (time.perf_counter() - begun))
    median, p99 = np.percentile(times_ms[WARM_UP:], (50, 99)).round(1).tolist()
    return {
        'size': size,
        'parameters': checkpoints.count_parameters(model),
        'image': [height, width],
        'device': str(predictor.device),
        'precision': predictor.precision,
        'threads': torch.get_num_threads(),
        'median_ms': median,
        'p99_ms': p99,
    }


def main(argv: list[str] | None = None) -> int:
    """Print one line of JSON a size."""
    parser = argparse.ArgumentParser(prog='python -m sartm_model.benchmark', description=__doc__)
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES))
    parser.add_argument('--height', type=int, default=480, help='pixels (default: %(default)s)')
    parser.add_argument('--width', type=int, default=640, help='pixels (default: %(default)s)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--iterations', type=int, default=5, help='timed (default: %(default)s)')
    args = parser.parse_args(argv)
    for size in args.sizes:
        result = measure(size, args.height, args.width, args.device, args.iterations)
        print(json.dumps(result), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
