"""Measure the training loader: `python -m benchmarks.training_loader --config FILE`.

Prints one line of JSON for each number of worker processes; 0 is this process alone.

A training that takes T seconds a step with batches of B samples needs B / T samples a second, and W
workers on W free cores give at most W times the rate of one. `keeps_up_with_step_ms` is
1000 B / rate: the training waits for the loader if its step is shorter than that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader

from sartm_model.config import TrainConfig, load_train_config
from sartm_model.data.sampling import ResumableBatchSampler, TrainingSamples
from sartm_model.data.sources import label_space_of_run
from sartm_model.errors import SartmError
from sartm_model.modalities import select
from sartm_model.training.initial_model import model_config_of


def measure_loader(config: TrainConfig, workers: int, samples: int) -> float:
    """Samples a second of the loader once its queue is in a steady state."""
    batch = config.data.batch_size
    dataset = TrainingSamples(
        config.data, label_space_of_run(config), _modalities(config), config.seed
    )
    loader = iter(
        DataLoader(dataset, batch_sampler=ResumableBatchSampler(0, batch), num_workers=workers)
    )
    for _ in range(2 * workers + 1):  # what the workers prepare ahead
        next(loader)
    batches = max(1, samples // batch)
    begun = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * batch / (time.perf_counter() - begun)


def _modalities(config: TrainConfig) -> tuple[str, ...]:
    """Return the modalities that a network is trained on."""
    return select(config.data.modality, config.model.modalities)


def main(argv: list[str] | None = None) -> int:
    """Print the figures of a configuration."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.training_loader',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='a training configuration')
    parser.add_argument(
        '--workers', nargs='+', type=int, help='of the loader (default: the configuration)'
    )
    parser.add_argument('--samples', type=int, default=200, help='timed (default: %(default)s)')
    parser.add_argument('--set', nargs='*', default=[], metavar='key=value', help='override')
    args = parser.parse_args(argv)
    # As in a worker, which has one core: several threads a worker only hinder each other.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        config = load_train_config(args.config, args.set, model_config_of)
        report(config, args.samples, args.workers or [config.data.workers])
    except SartmError as error:
        print(f'training_loader: {error}', file=sys.stderr)
        return 2
    return 0


def report(config: TrainConfig, samples: int, numbers_of_workers: Sequence[int]) -> None:
    """Print one line of JSON a number of workers."""
    for workers in numbers_of_workers:
        rate = measure_loader(config, workers, samples)
        line = {
            'workers': workers,
            'samples_per_s': round(rate, 1),
            'keeps_up_with_step_ms': round(1e3 * config.data.batch_size / rate, 1),
        }
        print(json.dumps(line), flush=True)


if __name__ == '__main__':
    sys.exit(main())
