"""`sartm benchmark --compare`: what each way to run a network takes, and whether its labels agree.

Whether two variants give the same labels shows only with trained weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartm_model.errors import SartmError
from sartm_model.inference.benchmark import (
    WARM_UPS,
    device_name,
    generate_frames,
    measure_s,
    median_and_p99,
)
from sartm_model.inference.predictor import Predictor
from sartm_model.models import checkpoint as checkpoints
from sartm_model.utils.text import first_line

SAMPLES = 4
"""Pairs whose labels are compared."""


def compare(
    checkpoint: str | Path,
    height: int,
    width: int,
    *,
    device: str = 'auto',
    iterations: int = 20,
    names: Sequence[str] | None = None,
    reference: str = 'fp32',
) -> dict[str, Any]:
    """Run variants in turn, pair by pair, and compare each with one of them.

    Args:
        checkpoint, height, width, device, iterations: as for `benchmark`.
        names: the variants, the reference among them; all that the device has where left out.
        reference: the variant with whose time and labels the others are compared. 'fp32' is the
            engine 'eager' with merged adapters.

    Returns:
        device, image, threads, iterations and variants. A variant has, by its name, median_ms,
        p99_ms, ratio (its median over that of the reference) and agreement (share of the pixels
        with the label that the reference gives, on generated frames), or error, what kept it from
        running.

    Raises:
        SartmError: the reference does not run.
    """
    default = Predictor(checkpoint, device=device)
    chosen = default.device
    frames = generate_frames(height, width, default.modalities, SAMPLES)
    predictors: dict[str, Predictor] = {}
    variants: dict[str, Any] = {}
    builders = build_variants(checkpoint, chosen)
    for name in names or builders:
        try:
            predictor = builders[name]()
            for _ in range(WARM_UPS):
                predictor.predict(frames[0])
            if name.endswith('compile') and predictor.engine != 'compile':
                raise SartmError('it cannot be compiled here')
        except Exception as error:  # a missing compiler is a result too
            text = f'{type(error).__name__}: {first_line(error)[:200]}'
            if name == reference:
                raise SartmError(
                    f'the variant {reference!r}, with which the others are compared, does not run '
                    f'here: {text}'
                ) from error
            variants[name] = {'error': text}
        else:
            predictors[name] = predictor
    times_s: dict[str, list[float]] = defaultdict(list)
    for _ in range(iterations):
        for name, predictor in predictors.items():
            times_s[name].append(measure_s(lambda p=predictor: p.predict(frames[0], copy=False)))  # type: ignore[misc]
    labels = {
        name: np.stack([predictor.predict(images).labels for images in frames])
        for name, predictor in predictors.items()
    }
    reference_s = float(np.median(times_s[reference]))
    for name, seconds in times_s.items():
        milliseconds = median_and_p99(seconds)
        variants[name] = {
            'median_ms': milliseconds['median'],
            'p99_ms': milliseconds['p99'],
            'ratio': round(float(np.median(seconds)) / reference_s, 3),
            'agreement': round(float((labels[name] == labels[reference]).mean()), 5),
        }
    return {
        'checkpoint': str(checkpoint),
        'image': [height, width],
        'device': device_name(chosen),
        'threads': torch.get_num_threads(),
        'iterations': iterations,
        'variants': variants,
    }


def build_variants(
    checkpoint: str | Path, device: torch.device
) -> dict[str, Callable[[], Predictor]]:
    """Return the builders of the predictors to be compared, by name."""

    def variant(
        precision: str = 'fp32',
        engine: str = 'eager',
        change: Callable[[Predictor], None] = lambda predictor: None,
    ) -> Callable[[], Predictor]:
        def build() -> Predictor:
            predictor = Predictor(
                checkpoint, device=str(device), precision=precision, engine=engine
            )
            change(predictor)
            return predictor

        return build

    def unmerged(predictor: Predictor) -> None:
        model = checkpoints.build(checkpoints.load(checkpoint), merged=False)
        predictor.pipeline.model = model.to(predictor.device)

    def plain(predictor: Predictor) -> None:
        """One operation after another, as they are trained, with channels first in memory."""
        model = checkpoints.build(checkpoints.load(checkpoint), optimized=False)
        model = model.to_precision(predictor.pipeline.dtype)
        predictor.pipeline.model = model.to(predictor.device)

    def channels_first(predictor: Predictor) -> None:
        predictor.pipeline.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def channels_last(predictor: Predictor) -> None:
        predictor.pipeline.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def one_stream(predictor: Predictor) -> None:
        predictor.pipeline.model.runner = None

    variants = {
        'fp32': variant(),
        'fp32 unmerged': variant(change=unmerged),
        'fp32 plain': variant(change=plain),
        'fp32 channels last': variant(change=channels_last),
    }
    if device.type == 'cpu':
        return {
            **variants,
            'fp32 compile': variant(engine='compile'),
            'fp32 parallel': variant(engine='parallel'),
            'bf16': variant('bf16'),
        }
    return {
        **variants,
        'fp16': variant('fp16'),
        'fp16 plain graph': variant('fp16', 'graph', plain),
        'fp16 graph': variant('fp16', 'graph'),
        'bf16': variant('bf16'),
        'bf16 graph': variant('bf16', 'graph'),
        'fp16 one stream graph': variant('fp16', 'graph', one_stream),
        'fp16 channels first graph': variant('fp16', 'graph', channels_first),
        'fp16 compile': variant('fp16', 'compile'),
    }
