"""A part of a small network as a list of operations, which a CPU goes through without Python.

Between two operations of nano Python takes as long as some operations do, and holds its lock, for
which the other half of the network waits (see `side_by_side`). The operations and their order stay
the same, and so do the results. On a GPU a CUDA graph does this, see `captured`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

KEPT = 2
"""Shapes of input whose list is kept: of all parts, 40 MiB a size of images."""

TRACEABLE = hasattr(torch.jit, '_get_trace_graph') and hasattr(
    torch._C, '_create_function_from_graph'
)
"""Whether torch has what is used here, which it does not promise. What it promises does not serve:
`torch.jit.trace` keeps each list and its weights as long as the process lives, and `torch.compile`
needs a compiler on the robot."""

_tracing = threading.Lock()
"""Two halves may come to trace at the same time, which torch does not say it can."""


class Traced:
    """Calls a part, and from the second time in a row that inputs have the same shapes, its list.

    To make one takes as long as several calls, which images of ever other sizes would not repay.
    For inference, of a part that does the same whatever the inputs' values are.

    Args:
        part: takes tensors or tuples of tensors, and gives a tensor or a tuple of them. Its weights
            take no gradients; they are shared, not copied.
    """

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._lists: dict[tuple[torch.Size, ...], Callable[..., Any]] = {}
        self._before: tuple[torch.Size, ...] = ()

    def __call__(self, *inputs: Any) -> Any:
        """What the part gives for these inputs."""
        shapes = tuple(tensor.shape for tensor in _tensors(inputs))
        if shapes not in self._lists:
            if shapes != self._before:
                self._before = shapes
                return self._part(*inputs)
            while len(self._lists) >= KEPT:
                del self._lists[next(iter(self._lists))]
            self._lists[shapes] = self._list(inputs)
        # The optimiser gains nothing here, and takes its time in the first calls.
        with torch.jit.optimized_execution(False):
            return self._lists[shapes](*_tensors(inputs))

    def _list(self, inputs: tuple[Any, ...]) -> Callable[..., Any]:
        with _tracing, warnings.catch_warnings():
            # That shapes become constants: a list is for one set of them.
            warnings.filterwarnings('ignore', category=torch.jit.TracerWarning)
            graph, _ = torch.jit._get_trace_graph(_Call(self._part), inputs)
            made: Callable[..., Any] = torch._C._create_function_from_graph('part', graph)
            return made


class _Call(nn.Module):
    """Calls a part that is none of its modules: so its weights are constants, not inputs."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self._part = [part]

    def forward(self, *inputs: Any) -> Any:
        return self._part[0](*inputs)


def _tensors(values: Any) -> list[Tensor]:
    """The tensors of nested tuples, in order."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)]
