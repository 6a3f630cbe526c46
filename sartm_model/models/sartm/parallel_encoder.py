"""Two halves of the network's work on two halves of a processor's cores, or on two GPU streams.

The operations of a small network are too short to be shared by threads: to wake one and to wait for
it takes as long as the work. But modalities, levels and heads do not depend on each other until
they meet, so each half takes its own way through many operations without a word to the other. On a
GPU it is the same: one small operation does not fill it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from sartm_model.models.sartm.encoder import Encoder, Pyramid
from sartm_model.models.sartm.lora import MergedQkv, Route
from sartm_model.utils.parallel import Runner


class SplitEncoder(nn.Module):
    """A merged `Encoder` that encodes each modality by itself, two of them at once.

    All weights but the merged projections are shared between the two.

    Args:
        encoder: in its inference form.
        runner: runs the two.
    """

    def __init__(self, encoder: Encoder, runner: Runner) -> None:
        super().__init__()
        self.channels = encoder.channels
        self.encoders = nn.ModuleDict(
            {name: _of_one_modality(encoder, name) for name in encoder.modalities}
        )
        self._runner = runner

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """As of `Encoder`."""
        names = list(images)
        if len(names) == 1:
            return self._encode(images, names[0])
        one, other = self._runner(
            lambda: self._encode(images, names[0]), lambda: self._encode(images, names[1])
        )
        return {**one, **other}

    def _encode(self, images: Mapping[str, Tensor], name: str) -> dict[str, Pyramid]:
        return self.encoders[name]({name: images[name]})


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
