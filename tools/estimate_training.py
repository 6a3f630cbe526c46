"""Estimate memory and time of a training run: `python -m tools.estimate_training --config FILE`.

One sample of the configured crop is passed through the model with fake tensors, which have shapes
but no values. Counted are the bytes in float32 that the forward pass keeps for the backward pass,
and the floating-point operations of both. From them follow estimates:

    memory = batch x kept bytes + 4 bytes x (2 weights + 3 trained weights)
             for the weights, their average, the gradient and AdamW's two moments, without what the
             allocator and the kernels need
    time   = steps x batch x operations / operations a second that the device sustains

bf16-mixed saves at most half of the kept bytes, because some operations stay in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sartm_model.config import TrainConfig, load_train_config
from sartm_model.data.sampling import label_space_of_run
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry


class TrainingCost(NamedTuple):
    """What training a model costs.

    Attributes:
        weights: number of weights.
        trained: number of weights that are trained.
        kept_bytes: bytes that the forward pass of a sample keeps for the backward pass.
        operations: floating-point operations of both passes for a sample.
    """

    weights: int
    trained: int
    kept_bytes: int
    operations: int


def count_cost(config: TrainConfig) -> TrainingCost:
    """Count what `TrainingCost` describes for the model and the crop of a configuration."""
    crop = (config.data.crop_height, config.data.crop_width)
    model = registry.build(config.model, len(label_space_of_run(config))).train().to('meta')
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # a freed storage could give its number to another tensor
        return tensor

    alive: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    # FlopCounterMode knows the attention kernel of GPUs but not that of CPUs, which does the same.
    for suffix in ('', '_backward'):
        on_gpu, on_cpu = (
            getattr(torch.ops.aten, f'_scaled_dot_product_flash_attention{device}{suffix}')
            for device in ('', '_for_cpu')
        )
        counter.flop_registry[on_cpu] = counter.flop_registry[on_gpu]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device='cpu')
        weights = {tensor.untyped_storage()._cdata for tensor in model.parameters()}
        with counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                images = {
                    name: torch.empty(1, MODALITIES[name].channels, *crop)
                    for name in config.model.modalities
                }
                output = model(images)
                # The real loss chooses pixels by their values, which fake tensors do not have.
                heads = output.logits.values()
                loss = torch.stack([logits.log_softmax(1).mean() for logits in heads]).sum()
            loss.backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return TrainingCost(
        sum(p.numel() for p in model.parameters()),
        trained,
        sum(kept.values()),
        counter.get_total_flops(),
    )


def main(argv: list[str] | None = None) -> int:
    """Print the estimates as JSON."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.estimate_training',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='a training configuration')
    parser.add_argument(
        '--tflops',
        type=float,
        default=20.0,
        help='10^12 operations a second that the device sustains (default: %(default)s)',
    )
    parser.add_argument('overrides', metavar='key=value', nargs='*', help='override a setting')
    args = parser.parse_args(argv)
    config = load_train_config(
        args.config, args.overrides, lambda name: checkpoints.load(name).config
    )
    cost, batch = count_cost(config), config.data.batch_size
    step_operations = batch * cost.operations
    state_bytes = 4 * (2 * cost.weights + 3 * cost.trained)
    result = {
        'size': config.model.size,
        'crop': [config.data.crop_height, config.data.crop_width],
        'batch': batch,
        'steps': config.steps,
        **cost._asdict(),
        'memory_gb_fp32': round((batch * cost.kept_bytes + state_bytes) / 1e9, 1),
        'step_tera_operations': round(step_operations / 1e12, 2),
        'hours_at_tflops': [
            round(config.steps * step_operations / (args.tflops * 1e12) / 3600, 1),
            args.tflops,
        ],
    }
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
