"""The loss of a training and the text embeddings of its language term."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from sartm_model.config.checks import (
    check_choice,
    check_fraction,
    check_not_negative,
    check_templates,
)
from sartm_model.errors import SartmError


class LossWeights(NamedTuple):
    """The weights of eq. 15, relative to the loss of a model's first head.

    Attributes:
        auxiliary: lambda 1, of the loss of each other head.
        prototype: lambda 2, of the prototype term.
        language: lambda 3, of the language-aided distillation.
    """

    auxiliary: float
    prototype: float
    language: float


PRESETS = {
    'paper': LossWeights(0.008, 1e4, 100.0),
    'balanced': LossWeights(0.4, 0.1, 0.1),
}
"""Named weights of eq. 15.

`paper` has the published weights, which belong to the authors' code and its errors. With the losses
of this package the gradient of their prototype term at the fused map is 25 000 to 82 000 times that
of both heads together.

`balanced`, the default, keeps the terms at a tenth of the heads. At the fused map the gradient of
the prototype term is 0.8 to 2.3 times that of head 1 + 0.4 head 2, and that of the distillation 0.9
to 1.2 times (medians over 20 batches; nano, untrained and `demo`; generated scenes and MFNet). In
an ablation of nano it was better than `paper` and than any part of itself; with lite two seeds
showed no gain of the prototype and language terms, see docs/results.md.
"""


@dataclass(frozen=True)
class LossConfig:
    """The weights of eq. 15 and the hard example mining (OHEM) of eq. 11.

    Attributes:
        preset: balanced or paper, see `PRESETS`.
        auxiliary, prototype, language: each replaces a weight of the preset, see `LossWeights`;
            None keeps it, and 0 switches the term off.
        ohem_probability: a pixel is hard if the probability of its class is below this.
        ohem_min_fraction: smallest fraction of the labelled pixels that is kept.
        class_weights: one per class, to raise rare classes; empty for equal weights.
        class_balance: exponent p of weights (n / n_c)^p instead, where n_c is the share of class c
            in the pixels of the training frames and n that of the most frequent class; 0 for none.
            At most 200 frames of each source are counted; a class in none of them has the weight of
            the rarest one that is.
    """

    preset: str = 'balanced'
    auxiliary: float | None = None
    prototype: float | None = None
    language: float | None = None
    ohem_probability: float = 0.7
    ohem_min_fraction: float = 1 / 16
    class_weights: list[float] = field(default_factory=list)
    class_balance: float = 0.0

    def __post_init__(self) -> None:
        check_choice('loss.preset', self.preset, tuple(PRESETS))
        for name, value in self.weights._asdict().items():
            if not 0 <= value < math.inf:
                raise SartmError(f'loss.{name} is {value}; expected 0 (off) or more')
        if not 0 < self.ohem_probability <= 1:
            raise SartmError(
                f'loss.ohem_probability is {self.ohem_probability}; expected above 0 and at most 1'
            )
        check_fraction('loss.ohem_min_fraction', self.ohem_min_fraction)
        for weight in self.class_weights:
            check_not_negative('a weight in loss.class_weights', weight)
        if self.class_weights and not any(self.class_weights):
            raise SartmError('loss.class_weights are all 0; expected more than 0 for one class')
        check_fraction('loss.class_balance', self.class_balance)
        if self.class_weights and self.class_balance:
            raise SartmError(
                'loss.class_weights and loss.class_balance are both set; expected one of them'
            )

    @property
    def weights(self) -> LossWeights:
        """The weights of the preset, replaced by those that are set."""
        given = {key: getattr(self, key) for key in LossWeights._fields}
        set_here = {key: value for key, value in given.items() if value is not None}
        return PRESETS[self.preset]._replace(**set_here)


@dataclass(frozen=True)
class TextConfig:
    """The text embeddings of the class names, for the language-aided distillation.

    Attributes:
        embeddings: a precomputed file, .npz or .safetensors; empty to compute them with open_clip.
        model: name of an open_clip model.
        pretrained: its weights: a file with a state dict, or a tag of open_clip, which downloads
            them. For OpenAI's weights from a file (not their own .pt, a TorchScript archive), set
            model to ViT-B-32-quickgelu; with a tag open_clip knows it.
        templates: prompts, with {name} for the class; their embeddings are averaged.
        names: class -> words for {name}, instead of the built-in ones; no words leave the class
            out.
    """

    embeddings: str = ''
    model: str = 'ViT-B-32'
    pretrained: str = 'openai'
    templates: list[str] = field(default_factory=lambda: ['a {name}'])
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_templates('text.templates', self.templates)
