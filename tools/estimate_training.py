"""What a training run needs: `python -m tools.estimate_training --config FILE`.

Counted, without computing anything (fake tensors), on one sample at the configured crop: the bytes
in float32 that the forward pass keeps for the backward pass, and the floating-point operations of
both. What follows from them are estimates, not measurements:

    memory = batch x kept + 4 bytes x (2 weights + 3 trained): the weights and their average; the
             gradient and AdamW's two moments. Left out: what the allocator and kernels need.
    time   = steps x batch x operations / the rate that the device sustains

bf16-mixed halves what is kept at best: some operations stay in float32.
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
from sartm_model.labels import LABEL_SPACES
from sartm_model.models.sartm import Sartm


class Needs(NamedTuple):
    """Of a model: numbers of weights, and of trained ones; of a sample: bytes and operations."""

    weights: int
    trained: int
    kept_bytes: int
    operations: int


def count_needs(config: TrainConfig) -> Needs:
    """Count weights, bytes kept and operations of one sample of a run."""
    crop = (config.data.crop_height, config.data.crop_width)
    model = Sartm(config.model, len(LABEL_SPACES[config.label_space])).train().to('meta')
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # else another tensor may get its number
        return tensor

    alive: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    # The counter knows the attention of GPUs; that of CPUs does the same work.
    for end in ('', '_backward'):
        known, here = (
            getattr(torch.ops.aten, f'_scaled_dot_product_flash_attention{kind}{end}')
            for kind in ('', '_for_cpu')
        )
        counter.flop_registry[here] = counter.flop_registry[known]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device='cpu')
        weights = {tensor.untyped_storage()._cdata for tensor in model.parameters()}
        with counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                output = model(torch.empty(1, 3, *crop), torch.empty(1, 1, *crop))
                # The loss chooses pixels by their values, which fake tensors lack: take all.
                mask = output.mask_logits.log_softmax(1).mean()
                loss = mask + output.auxiliary_logits.log_softmax(1).mean()
            loss.backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Needs(
        sum(p.numel() for p in model.parameters()),
        trained,
        sum(kept.values()),
        counter.get_total_flops(),
    )


def main(argv: list[str] | None = None) -> int:
    """Print the estimates as JSON."""
    parser = argparse.ArgumentParser(prog='python -m tools.estimate_training', description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='a training configuration')
    parser.add_argument(
        '--tflops',
        type=float,
        default=20.0,
        help='the rate a device sustains, 10^12 operations a second (default: %(default)s)',
    )
    parser.add_argument('overrides', metavar='key=value', nargs='*', help='override a setting')
    args = parser.parse_args(argv)
    config = load_train_config(args.config, args.overrides)
    needs, batch = count_needs(config), config.data.batch_size
    step_operations = batch * needs.operations
    state_bytes = 4 * (2 * needs.weights + 3 * needs.trained)
    result = {
        'size': config.model.size,
        'crop': [config.data.crop_height, config.data.crop_width],
        'batch': batch,
        'steps': config.steps,
        **needs._asdict(),
        'memory_gb_fp32': round((batch * needs.kept_bytes + state_bytes) / 1e9, 1),
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
