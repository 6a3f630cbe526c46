"""Two halves of the network's work on two halves of a processor's cores, or on two GPU streams.

The operations of a small network are too short to be shared by threads: to wake one and to wait for
it takes as long as the work. But modalities, levels and heads do not depend on each other until
they meet, so each half takes its own way through many operations without a word to the other. On a
GPU it is the same: one small operation does not fill it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from sartm_model.network.encoder import Encoder, Pyramid
from sartm_model.network.lora import MergedQkv, Route
from sartm_model.network.traced import Traced

First = TypeVar('First')
Second = TypeVar('Second')


class AtOnce(Protocol):
    """What runs two functions at once and gives both results, when both have ended."""

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]: ...


def one_by_one(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """In the place of an `AtOnce`: one after the other."""
    return first(), second()


class SideBySide:
    """Runs two functions at once, without gradients: one in a thread of its own.

    Each has half of torch's threads, but one at least. For one caller at a time.
    """

    def __init__(self) -> None:
        self._other = ThreadPoolExecutor(1, thread_name_prefix='side')

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Both results. What either raises is raised when both have ended."""
        threads = torch.get_num_threads()
        half = max(threads // 2, 1)

        def other() -> Second:
            torch.set_num_threads(half)
            with torch.inference_mode():
                return second()

        coming = self._other.submit(other)
        try:
            torch.set_num_threads(half)
            made = first()
        finally:
            error = coming.exception()  # waits: the threads are shared until both have ended
            torch.set_num_threads(threads)
        if error is not None:
            raise error
        return made, coming.result()


class TwoStreams:
    """Runs two functions at once on a GPU: what the second asks for goes to a stream of its own.

    A graph can record it: that stream joins the recording where it waits for the current one, and
    the current one waits for it at the end. For one caller at a time.

    The allocator lets memory that was freed be used again by its own stream at once, though the
    other one may still read it. Here it cannot: what a function is given, its caller holds until
    the end; all that the second allocates, and lets go of, is settled before the first begins; and
    the next second begins by waiting for all that has read its results. A graph's memory is a pool
    of its own, to which the same applies.

    Args:
        device: CUDA device that both work on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._other = torch.cuda.Stream(device)

    def __call__(
        self, first: Callable[[], First], second: Callable[[], Second]
    ) -> tuple[First, Second]:
        """Both results, which the current stream may use. What either raises is raised."""
        current = torch.cuda.current_stream(self._device)
        self._other.wait_stream(current)
        try:
            with torch.cuda.stream(self._other):
                there = second()
            return first(), there
        finally:
            current.wait_stream(self._other)


class SplitEncoder(nn.Module):
    """A merged `Encoder` that encodes each modality by itself, two of them at once.

    All weights but the merged projections are shared between the two.

    Args:
        encoder: in its inference form.
        side_by_side: runs the two.
        traced: run each without Python, see `Traced`.
    """

    def __init__(self, encoder: Encoder, side_by_side: AtOnce, *, traced: bool = False) -> None:
        super().__init__()
        self.channels = encoder.channels
        self.encoders = nn.ModuleDict(
            {name: _of_one_modality(encoder, name) for name in encoder.modalities}
        )
        self._side_by_side = side_by_side
        parts = {name: _OfImage(one, name) for name, one in self.encoders.items()}
        self._parts = {name: Traced(part) for name, part in parts.items()} if traced else parts

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """As of `Encoder`."""
        names = list(images)
        if len(names) == 1:
            return self._encode(images, names[0])
        one, other = self._side_by_side(
            lambda: self._encode(images, names[0]), lambda: self._encode(images, names[1])
        )
        return {**one, **other}

    def _encode(self, images: Mapping[str, Tensor], name: str) -> dict[str, Pyramid]:
        return {name: Pyramid(*self._parts[name](images[name]))}


class _OfImage(nn.Module):
    """An encoder of one modality as a function of its image alone."""

    def __init__(self, encoder: nn.Module, name: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.name = name

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder({self.name: image})[self.name])


def _of_one_modality(encoder: Encoder, name: str) -> Encoder:
    """The encoder with that modality's projections alone, as plain layers."""
    index = encoder.modalities.index(name)
    one = copy.deepcopy(encoder, {id(weight): weight for weight in encoder.parameters()})
    one.modalities = (name,)
    one.route = Route(one.modalities)
    for block in one.trunk.blocks:
        merged: MergedQkv = block.attn.qkv
        weight = merged.weight[index].detach()
        plain = nn.Linear(weight.shape[1], weight.shape[0], device='meta')
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.bias = merged.bias
        block.attn.qkv = plain
    return one
