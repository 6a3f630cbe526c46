"""The losses against loops in float64, and the prototypes across processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from sartm_model.config import LossConfig
from sartm_model.errors import SartmError
from sartm_model.models.base import SegmentationOutput
from sartm_model.training.loss_table import LossInputs, prototype_term
from sartm_model.training.losses import (
    Prototypes,
    class_means,
    language_loss,
    ohem_cross_entropy,
    prototype_loss,
)

K, C, D = 6, 5, 7


def batch(seed=0, size=(70, 100), dtype=torch.float32):
    """A map of two padded 70x100 inputs and labels without the classes 3 and 5."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (math.ceil(side / 32) * 2 for side in size)
    sfm = torch.randn(2, C, height, width, generator=generator).to(dtype)
    choices = torch.tensor([0, 1, 2, 4, 255])
    return sfm, choices[torch.randint(0, 5, (2, *size), generator=generator)]


def means_by_loops(sfm, labels):
    """Eq. 12 a cell at a time: the label of the pixel at the cell's centre, if it has one."""
    found = {k: [] for k in range(K)}
    for b, i, j in np.ndindex(sfm.shape[0], *sfm.shape[2:]):
        y, x = 16 * i + 8, 16 * j + 8
        if y < labels.shape[1] and x < labels.shape[2] and labels[b, y, x] != 255:
            found[int(labels[b, y, x])].append(sfm[b, :, i, j].double().numpy())
    means = [np.mean(found[k], axis=0) if found[k] else np.zeros(C) for k in range(K)]
    return np.array(means), np.array([len(found[k]) for k in range(K)])


def softmax(row):
    e = [math.exp(value - max(row)) for value in row]
    return [value / sum(e) for value in e]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def language_by_loops(means, text, classes):
    """Eq. 13-14 an entry at a time."""
    rows = []
    for i in classes:
        visual = softmax([cosine(means[i], means[j]) for j in classes])
        rows.append(kl(softmax([cosine(text[i], text[j]) for j in classes]), visual))
    return sum(rows) / len(rows)


def prototype_by_loops(prototypes, means, classes):
    return np.mean([kl(softmax(prototypes[k]), softmax(means[k])) for k in classes])


def text_teacher():
    """Embeddings of any length, none for class 1."""
    text = 3 * torch.randn(K, D, generator=torch.Generator().manual_seed(1))
    text[1] = 0
    return text


def filled_prototypes(initialized=(0, 1, 2, 3)):
    prototypes = Prototypes(K, C)
    prototypes.value.copy_(torch.randn(K, C, generator=torch.Generator().manual_seed(2)))
    prototypes.initialized[list(initialized)] = True
    return prototypes


def ohem_by_loops(logits, labels, probability, min_fraction, weights):
    """Eq. 11 a pixel at a time, in float64."""
    losses = []
    for b, y, x in np.ndindex(*labels.shape):
        if labels[b, y, x] != 255:
            column = logits[b, :, y, x].astype(np.float64)
            label = labels[b, y, x]
            losses.append((np.log(np.exp(column).sum()) - column[label], weights[label]))
    losses.sort(reverse=True)
    hard = [(loss, weight) for loss, weight in losses if loss > -math.log(probability)]
    least = max(1, int(len(losses) * min_fraction))
    chosen = hard if len(hard) >= least else losses[:least]
    return sum(w * loss for loss, w in chosen) / sum(w for _, w in chosen)


@pytest.mark.parametrize('confidence', [0.5, 6.0])
def test_ohem_equals_loops(confidence):
    """With confident logits few pixels are hard, and the floor of N / 16 decides."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 9, 11))
    logits = rng.normal(size=(2, 4, 9, 11)).astype(np.float32)
    np.put_along_axis(logits, labels[:, None], confidence, axis=1)
    labels[rng.random(labels.shape) < 0.2] = 255
    for weights in (None, torch.tensor([1.0, 2.0, 5.0, 0.5])):
        found = ohem_cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(labels), class_weights=weights
        )
        by_class = [1.0] * 4 if weights is None else weights.tolist()
        wanted = ohem_by_loops(logits, labels, 0.7, 1 / 16, by_class)
        # float32's rounding of logits of 6, over losses of a hundredth.
        assert found.item() == pytest.approx(wanted, rel=1e-4)


def test_with_probability_1_every_pixel_counts():
    """Also those whose cross-entropy float32 rounds to 0, from a margin of about 17 on."""
    logits = torch.tensor([1.0, 5.0, 18.0, 25.0]).reshape(1, 1, 1, 4)
    logits = torch.cat([logits, torch.zeros_like(logits)], dim=1)
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    found = ohem_cross_entropy(logits, labels, probability=1.0)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels))


def test_ohem_without_labels_is_zero_and_differentiable():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = ohem_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_ohem_of_classes_of_weight_0_is_zero_and_differentiable():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    weights = torch.tensor([0.0, 1.0, 1.0])
    loss = ohem_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=int), class_weights=weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_ohem_gradient():
    logits = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (1, 3, 3))
    # Finite differences in float32, which the loss is computed in: hence the wide tolerance.
    assert torch.autograd.gradcheck(
        lambda x: ohem_cross_entropy(x, labels), logits, eps=1e-3, atol=2e-3
    )


@pytest.mark.parametrize('size', [(64, 96), (70, 100), (33, 40), (63, 97)])
def test_class_means_equal_loops(size):
    sfm, labels = batch(size=size)
    found = class_means(sfm, labels, K)
    means, counts = means_by_loops(sfm, labels.numpy())
    np.testing.assert_allclose(found.means, means, atol=1e-6)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.present, counts > 0)


def test_a_cell_has_the_class_of_its_own_pixels():
    """An object that fills a cell is met there and nowhere else, padding or not."""
    for height, width in ((64, 64), (50, 60)):
        for i, j in ((0, 0), (1, 2), (2, 3)):
            labels = torch.full((1, height, width), 255)
            labels[0, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16] = 4
            sfm = torch.arange(16.0).view(1, 1, 4, 4)
            found = class_means(sfm, labels, K)
            assert found.counts.tolist() == [0, 0, 0, 0, 1, 0]
            assert found.means[4].item() == 4 * i + j


def test_labels_of_another_image_are_refused():
    sfm, labels = batch()
    for wrong in (labels[:, :, :1].expand(-1, -1, 129), labels[:1]):
        with pytest.raises(SartmError, match='do not fit'):
            class_means(sfm, wrong, K)


def test_language_loss_equals_loops():
    sfm, labels = batch()
    means, present, text = *means_of(sfm, labels), text_teacher()
    wanted = language_by_loops(means.tolist(), text.tolist(), [0, 2, 4])
    assert wanted > 0.01
    assert language_loss(means, present, text).item() == pytest.approx(wanted, rel=1e-5)
    # Cosines know no length, so a teacher's embeddings need none.
    scaled = language_loss(means, present, text * torch.rand(K, 1).add(0.1))
    assert scaled.item() == pytest.approx(wanted, rel=1e-5)
    # Features that relate as the names do leave nothing to learn.
    assert language_loss(text, present, text).item() == pytest.approx(0, abs=1e-7)


def means_of(sfm, labels):
    found = class_means(sfm, labels, K)
    return found.means, found.present


def test_prototype_loss_equals_loops():
    sfm, labels = batch()
    means, present = means_of(sfm, labels)
    prototypes = filled_prototypes()
    wanted = prototype_by_loops(prototypes.value.tolist(), means.tolist(), [0, 1, 2])
    assert wanted > 0.01
    assert prototype_loss(prototypes, means, present).item() == pytest.approx(wanted, rel=1e-5)


def test_the_term_compares_with_the_prototypes_before_the_batch():
    """The distance from means that already hold the batch would be shorter."""
    prototypes = Prototypes(K, C)
    found, means = [], []
    for seed in range(2):
        sfm, labels = batch(seed)
        output = SegmentationOutput({}, semantic_map=sfm)
        inputs = LossInputs(output, labels, LossConfig(), prototypes, None)
        found.append(prototype_term(inputs).item())
        means.append(means_by_loops(sfm, labels.numpy())[0])
    assert found == [0, pytest.approx(prototype_by_loops(*means, [0, 1, 2, 4]), rel=1e-4)]


def losses_on_the_map(text, prototypes):
    """The two terms as functions of the map, as training composes them."""

    def language(sfm, labels):
        return language_loss(*means_of(sfm, labels), text)

    def prototype(sfm, labels):
        return prototype_loss(prototypes, *means_of(sfm, labels))

    return language, prototype


def test_gradients():
    sfm, labels = batch(dtype=torch.float64)
    text = text_teacher()
    for loss in losses_on_the_map(text.double(), filled_prototypes().double()):
        assert torch.autograd.gradcheck(lambda x, f=loss: f(x, labels), sfm.requires_grad_())


@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_maps(autocast):
    """Computed in float32 of what the map holds, and the gradient comes back in the map's type."""
    sfm, labels = batch(dtype=torch.bfloat16)
    text = text_teacher()
    prototypes = filled_prototypes()
    means, _ = means_by_loops(sfm.float(), labels.numpy())
    wanted = (
        language_by_loops(means, text.tolist(), [0, 2, 4]),
        prototype_by_loops(prototypes.value.tolist(), means, [0, 1, 2]),
    )
    losses = losses_on_the_map(text, prototypes)
    for loss, value in zip(losses, wanted, strict=True):
        leaf = sfm.clone().requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            found = loss(leaf, labels)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(value, rel=1e-4)
        (gradient,) = torch.autograd.grad(found, leaf)
        assert gradient.dtype == torch.bfloat16
        assert gradient.isfinite().all()
        assert gradient.any()


def test_ohem_under_autocast():
    logits = torch.randn(1, K, 8, 8, dtype=torch.bfloat16).requires_grad_()
    labels = torch.randint(0, K, (1, 8, 8))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = ohem_cross_entropy(logits, labels)
    wanted = ohem_cross_entropy(logits.detach().float(), labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_classes_that_take_no_part_leave_no_gradient():
    sfm, labels = batch()
    text = text_teacher()  # none for class 1
    prototypes = filled_prototypes(initialized=(0, 1, 3))  # neither 2 nor 4
    shown = torch.full(sfm.shape[:1] + sfm.shape[2:], 255)
    inside = labels[:, 8::16, 8::16]
    shown[:, : inside.shape[1], : inside.shape[2]] = inside
    losses = losses_on_the_map(text, prototypes)
    for loss, taking_part in zip(losses, ((0, 2, 4), (0, 1)), strict=True):
        leaf = sfm.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, labels), leaf)
        moved = gradient.abs().sum(dim=1) > 0
        assert torch.equal(moved, torch.isin(shown, torch.tensor(taking_part)))


def test_batches_in_which_nothing_takes_part():
    sfm, labels = batch()
    text = text_teacher()
    empty = torch.full_like(labels, 255)
    one = torch.where(labels == 2, 2, 255)  # has no second class to relate to, nor a prototype
    for loss in losses_on_the_map(text, filled_prototypes(initialized=(0,))):
        for batch_labels in (empty, one):
            leaf = sfm.clone().requires_grad_()
            found = loss(leaf, batch_labels)
            found.backward()
            assert found.item() == 0
            assert leaf.grad is not None
            assert not leaf.grad.any()


def test_prototypes_follow_the_classes_present():
    prototypes = Prototypes(K, C)
    wanted, initialized = np.zeros((K, C)), np.zeros(K, bool)
    for seed in range(4):
        sfm, labels = batch(seed)
        labels[labels == seed] = 255  # each batch misses one class more
        means, counts = means_by_loops(sfm, labels.numpy())
        for k in np.flatnonzero(counts):
            wanted[k] = 0.9 * wanted[k] + 0.1 * means[k] if initialized[k] else means[k]
            initialized[k] = True
        found = class_means(sfm.requires_grad_(), labels, K)
        prototypes.update(found.means, found.counts)
        np.testing.assert_allclose(prototypes.value, wanted, atol=1e-6)
        np.testing.assert_array_equal(prototypes.initialized, initialized)
    assert not prototypes.value.requires_grad
    assert initialized.tolist() == [True, True, True, False, True, False]


def test_prototypes_are_saved_and_resumed():
    first = filled_prototypes()
    assert list(first.parameters()) == []
    again = Prototypes(K, C)
    again.load_state_dict(first.state_dict())
    sfm, labels = batch()
    means, present = means_of(sfm, labels)
    assert torch.equal(prototype_loss(first, means, present), prototype_loss(again, means, present))
    for prototypes in (first, again):
        prototypes.update(means, class_means(sfm, labels, K).counts)
    assert torch.equal(first.value, again.value)
    assert torch.equal(first.initialized, again.initialized)


def half_of_two_batches(rank):
    """The image of each batch that a process has; class 1 is in the second image only."""
    for seed in range(2):
        sfm, labels = batch(seed)
        labels[0][labels[0] == 1] = 0
        yield (sfm, labels) if rank is None else (sfm[rank : rank + 1], labels[rank : rank + 1])


def update_by_two_batches(prototypes, rank):
    for sfm, labels in half_of_two_batches(rank):
        prototypes.update(*class_means(sfm, labels, K))


def process(rank, folder):
    """One of two processes of a distributed run; saves its prototypes in the folder."""
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    prototypes = Prototypes(K, C)
    update_by_two_batches(prototypes, rank)
    torch.save(prototypes.state_dict(), f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason='this torch is built without distributed')
def test_distributed_prototypes_are_those_of_the_whole_batch(tmp_path):
    mp.spawn(process, args=(str(tmp_path),), nprocs=2)
    zero, one = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in range(2))
    whole = Prototypes(K, C)
    update_by_two_batches(whole, None)
    for name, value in whole.state_dict().items():
        assert torch.equal(zero[name], one[name])
        np.testing.assert_allclose(zero[name], value, atol=1e-6)
    assert whole.initialized[1]
