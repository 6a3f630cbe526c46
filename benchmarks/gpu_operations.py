"""Counts the operations that a pair starts on a GPU, without a GPU.

    python -m benchmarks.gpu_operations lite tiny

A small network is bound on a GPU by the number of its kernels, not by their arithmetic. The count
is of torch's operations on tensors without memory (device 'meta'), for which the network takes the
form and the branches that it takes for a GPU. An operation may be more or less than one kernel; a
convolution's bias, which cuDNN adds in a kernel of its own, counts as one more.

A CUDA graph cannot record what waits for the GPU or needs a tensor of the host. Both are errors
here.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sartm_model.errors import SartmError
from sartm_model.inference.benchmark import generate_frames, untrained
from sartm_model.inference.pipeline import InferencePipeline, OutputRequest
from sartm_model.models import checkpoint as checkpoints
from sartm_model.utils.parallel import Result

META = torch.device('meta')

_VIEWS = frozenset(
    {
        *('alias', 'as_strided', 'detach', 'expand', 'permute', 'select', 'slice', 'split'),
        *('split_with_sizes', 'squeeze', 't', 'transpose', 'unbind', 'unfold', 'unsqueeze', 'view'),
        *('_unsafe_view', 'empty', 'empty_like', 'empty_strided', 'new_empty'),
    }
)
"""Operations that start no kernel."""

_WHOLE = frozenset({'scaled_dot_product_attention', 'upsample_bilinear2d', 'upsample_nearest2d'})
"""Operations that torch may take apart, but which are one kernel on a GPU."""

_FROM_HOST = frozenset({'lift_fresh', '_local_scalar_dense'})
"""Operations that make a tensor of numbers on the host, or a number of a tensor."""


class OperationCounts(NamedTuple):
    """Operations of one pair.

    Attributes:
        parts: of each part of the network and of what comes before and after it.
        in_row: of the longest way through functions that run in parallel, in which only the
            operations of the longest one count.
        names: of each kind.
    """

    parts: Counter[str]
    in_row: int
    names: Counter[str]


class _Counting(TorchDispatchMode):
    """Counts what runs within, and is a `Runner` that takes note of what would be parallel."""

    def __init__(self) -> None:
        super().__init__()
        self.part = 'preprocess'
        self.counts = OperationCounts(Counter(), 0, Counter())

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in _FROM_HOST or any(tensor.device != META for tensor in tensors):
            raise SartmError(f'{self.part}: {name} needs the host; a CUDA graph cannot')
        if name not in _WHOLE:
            with self:
                parts = function.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        if name not in _VIEWS:
            self._count(name)
        result = function(*args, **(kwargs or {}))
        if name == 'convolution':
            image, weight, bias = args[:3]
            if bias is not None:
                self._count('bias of a convolution')
            if any(_is_channels_last(tensor) for tensor in (image, weight)):
                result = result.contiguous(memory_format=torch.channels_last)  # as cuDNN's is
        return result

    def _count(self, name: str) -> None:
        self.counts.parts[self.part] += 1
        self.counts.names[name] += 1
        self.counts = self.counts._replace(in_row=self.counts.in_row + 1)

    def run_parallel(self, *functions: Callable[[], Result]) -> tuple[Result, ...]:
        """Run functions one by one; only the longest adds to the operations in a row."""
        before, results, ends = self.counts.in_row, [], []
        for function in functions:
            self.counts = self.counts._replace(in_row=before)
            results.append(function())
            ends.append(self.counts.in_row)
        self.counts = self.counts._replace(in_row=max(ends))
        return tuple(results)

    @contextmanager
    def parts_of(self, model: nn.Module) -> Iterator[None]:
        """Count what each child of a network does under the child's name."""
        with ExitStack() as hooks:
            for name, child in model.named_children():

                def enter(*_: Any, name: str = name) -> None:
                    self.part = name

                def leave(*_: Any) -> None:
                    self.part = 'network'

                for module in child if isinstance(child, nn.ModuleList) else [child]:
                    hooks.callback(module.register_forward_pre_hook(enter).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            yield


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def count_operations(
    checkpoint: str | Path,
    images: Mapping[str, np.ndarray],
    request: OutputRequest | None = None,
) -> OperationCounts:
    """Count the operations of a frame as the engine 'graph' runs it in fp16.

    Args:
        checkpoint: file, or one of `checkpoint.SHIPPED`.
        images: raw images by modality, in the order of the network's modalities.
        request: see `InferencePipeline`; labels alone where left out.

    Raises:
        SartmError: an operation needs the host.
    """
    loaded = checkpoints.load(checkpoint)
    model = checkpoints.build(loaded, for_gpu=True).to_precision(torch.float16).to(META)
    counting = _Counting()
    model.enable_parallel(counting.run_parallel)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pipeline = InferencePipeline(model, loaded.label_space)
    on_device = {name: torch.from_numpy(image).to(META) for name, image in images.items()}
    params = torch.empty(13, device=META)

    def on_stage_end(stage: str) -> None:
        counting.part = {'preprocess': 'network', 'network': 'labels'}[stage]

    # The first run makes the tensors that are kept for a size, as those before a recording do.
    for counted in (nullcontext(), counting):
        counting.counts = OperationCounts(Counter(), 0, Counter())
        counting.part = 'preprocess'
        with counted, counting.parts_of(model):
            pipeline(on_device, params, request or OutputRequest(), on_stage_end)
    return counting.counts


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu_operations',
        description='Count the operations that a pair starts on a GPU.',
    )
    parser.add_argument('sizes', metavar='SIZE', nargs='+', help='lite, tiny, ...')
    parser.add_argument('--height', metavar='PIXELS', type=int, default=480)
    parser.add_argument('--width', metavar='PIXELS', type=int, default=640)
    parser.add_argument('--uint16', action='store_true', help='thermal images of 16 bits')
    parser.add_argument('--names', action='store_true', help='also the kinds of operations')
    args = parser.parse_args(argv)
    images = generate_frames(args.height, args.width, ('rgb', 'thermal'))[0]
    if args.uint16:
        images['thermal'] = images['thermal'].astype(np.uint16)
    for size in args.sizes:
        with untrained(size) as checkpoint:
            counts = count_operations(checkpoint, images)
        parts = ', '.join(f'{part} {count}' for part, count in counts.parts.items())
        print(f'{size}: {counts.parts.total()} operations, {counts.in_row} in a row; {parts}')
        if args.names:
            print('  ' + ', '.join(f'{name} {n}' for name, n in counts.names.most_common()))


if __name__ == '__main__':
    main()
