"""A label space without background: no id is special to the losses and to the metrics.

If the classes are given in another order, each loss and each mean stays the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartm_model.evaluation.boundary import BoundaryCounts
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_model.training.losses import (
    Prototypes,
    class_means,
    language_loss,
    ohem_cross_entropy,
    prototype_loss,
)

NAMES = ('road', 'grass', 'wall', 'person')
CLASSES = len(NAMES)


def space_of(names: tuple[str, ...]) -> LabelSpace:
    return LabelSpace('yard', names, tuple((50 * i, 9, 9) for i in range(CLASSES)))


def reordered(labels: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Return the labels where the class `order[i]` has become the class i."""
    new_ids = torch.full((256,), IGNORE_ID)
    new_ids[order] = torch.arange(CLASSES)
    return new_ids[labels]


@pytest.mark.parametrize('order', [[1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]])
def test_losses_do_not_depend_on_the_order_of_the_classes(order):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 64, 96, generator=generator)
    labels = torch.randint(0, CLASSES, (2, 64, 96), generator=generator)
    labels[:, :, :20] = IGNORE_ID
    features = torch.randn(2, 8, 4, 6, generator=generator)
    texts = torch.randn(CLASSES, 16, generator=generator)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    earlier = torch.randn(CLASSES, 8, generator=generator)

    def terms(order: list[int]) -> list[float]:
        ids = reordered(labels, order)
        found = class_means(features, ids, CLASSES)
        prototypes = Prototypes(CLASSES, 8)
        prototypes.update(earlier[order], torch.ones(CLASSES, dtype=torch.long))
        losses = (
            ohem_cross_entropy(logits[:, order], ids),
            ohem_cross_entropy(logits[:, order], ids, class_weights=weights[order]),
            language_loss(found.means, found.present, texts[order]),
            prototype_loss(prototypes, found.means, found.present),
        )
        return [loss.item() for loss in losses]

    expected = terms([0, 1, 2, 3])
    assert min(expected) > 1e-3  # each of the losses has something to say
    assert terms(order) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('order', [[1, 0, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]])
def test_metrics_do_not_depend_on_the_order_of_the_classes(order):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, CLASSES, (6, 8), generator=generator).repeat_interleave(8, 0)
    truth = truth.repeat_interleave(8, 1)
    predicted = torch.where(torch.rand(48, 64, generator=generator) < 0.2, 0, truth.roll(2, 1))

    def figures(order: list[int]) -> dict:
        images = reordered(predicted, order).numpy(), reordered(truth, order).numpy()
        confusion, boundary = ConfusionMatrix(CLASSES), BoundaryCounts(CLASSES)
        confusion.update(*images)
        boundary.update(*images)
        space = space_of(tuple(NAMES[i] for i in order))
        return confusion.compute(space) | boundary.compute(space)

    expected, found = figures([0, 1, 2, 3]), figures(order)
    for name in ('miou', 'pixel_accuracy', 'per_class_iou', 'boundary_f1'):
        assert found[name] == pytest.approx(expected[name])
    assert expected['miou'] == pytest.approx(np.mean(list(expected['per_class_iou'].values())))
    assert expected['miou_foreground'] is None
    assert found['miou_foreground'] is None
