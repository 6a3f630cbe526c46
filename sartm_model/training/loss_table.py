"""The loss of a run: a table of terms, each a name, a function and a weight (eq. 15).

To add a term, write a function of `LossInputs` and add its entry to `loss_terms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from sartm_model.config import LossConfig
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationModel, SegmentationOutput
from sartm_model.training.losses import (
    ClassMeans,
    Prototypes,
    class_means,
    language_loss,
    ohem_cross_entropy,
    prototype_loss,
)


@dataclass
class LossInputs:
    """What the terms of one step are computed from.

    Attributes:
        output: of the model.
        labels: int64 `[B, H, W]` of class ids, 255 for 'not labelled'.
        config: settings of the losses.
        prototypes: of K classes; the term `prototype` updates them.
        text_embeddings: of the class names, see `text_embeddings`; None without the term
            `language`.
        excluded: bool `[B, K]`, classes that the data set of an image does not label; None for
            none.
    """

    output: SegmentationOutput
    labels: Tensor
    config: LossConfig
    prototypes: Prototypes
    text_embeddings: Tensor | None
    excluded: Tensor | None = None

    @cached_property
    def class_means(self) -> ClassMeans:
        """The class features of the batch, which several terms use."""
        assert self.output.semantic_map is not None
        return class_means(self.output.semantic_map, self.labels, len(self.prototypes.value))


class LossTerm(NamedTuple):
    """An entry of the table.

    Attributes:
        name: under which it is logged.
        function: computes the term, a number.
        weight: factor of the term in the loss.
    """

    name: str
    function: Callable[[LossInputs], Tensor]
    weight: float


def loss_terms(config: LossConfig, model: SegmentationModel) -> list[LossTerm]:
    """Return the terms that a model is trained with, those whose weight is not 0.

    Raises:
        SartmError: a term is asked for that the model has no feature map for, or a head that
            `model.prediction` names would not be trained.
    """
    weights = config.weights
    main, *others = model.HEADS
    heads = [
        LossTerm(main, partial(head_loss, head=main), 1.0),
        *(LossTerm(head, partial(head_loss, head=head), weights.auxiliary) for head in others),
    ]
    features = [
        LossTerm('prototype', prototype_term, weights.prototype),
        LossTerm('language', language_term, weights.language),
    ]
    if untrained := [t.name for t in heads if not t.weight and t.name in model.predicted_heads]:
        raise SartmError(
            f'loss.auxiliary is 0, so the head {untrained[0]} is not trained, but model.prediction '
            f'is {model.config.prediction!r}; expected {main}'
        )
    if not model.semantic_channels:
        # A preset gives these weights to any model; one that is set was meant for this model.
        if asked := [term.name for term in features if getattr(config, term.name)]:
            raise SartmError(
                f'loss.{asked[0]} is set, but {model.config.name} has no semantic feature map for '
                f'it; expected 0'
            )
        features = []
    return [term for term in [*heads, *features] if term.weight]


def head_loss(inputs: LossInputs, head: str) -> Tensor:
    """Cross-entropy of a head over the hard pixels (eq. 11)."""
    config, logits = inputs.config, inputs.output.logits[head]
    weights = torch.tensor(config.class_weights, device=logits.device)
    return ohem_cross_entropy(
        logits,
        inputs.labels,
        probability=config.ohem_probability,
        min_fraction=config.ohem_min_fraction,
        class_weights=weights if config.class_weights else None,
        excluded=inputs.excluded,
    )


def prototype_term(inputs: LossInputs) -> Tensor:
    """Distance of the class features from their running means, which then take this batch in."""
    features = inputs.class_means
    loss = prototype_loss(inputs.prototypes, features.means, features.present)
    inputs.prototypes.update(features.means, features.counts)
    return loss


def language_term(inputs: LossInputs) -> Tensor:
    """Distance of the relations of the class features from those of the class names."""
    assert inputs.text_embeddings is not None
    features = inputs.class_means
    return language_loss(features.means, features.present, inputs.text_embeddings)
