"""Temperature scaling: divide the logits by a number, so that the confidence says how often the
predicted class is right.

Guo et al., 'On Calibration of Modern Neural Networks', ICML 2017, section 4.2. With the logits x_h
of M heads and the true class y, the temperature T is the one with the smallest mean of

    -log(1 / M sum_h softmax(x_h / T)_y)

The predicted class of a head does not depend on T; that of the mean of several heads may change
where they disagree.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.data.base import FrameDataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.calibration import Calibration
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import IGNORE_ID
from sartm_model.models.checkpoint import Checkpoint
from sartm_model.models.logits import class_probabilities, labels_and_confidence
from sartm_model.models.registry import model_class

MAX_PIXELS = 1_000_000
"""So many labelled pixels are drawn, the same number of each frame."""

RANGE = (0.05, 20.0)
"""Temperatures that are believed. Where every pixel is right, no temperature is the best one."""


class Fit(NamedTuple):
    """A temperature, and the calibration error in percent without and with it."""

    temperature: float
    ece_before: float
    ece_after: float


def fit_temperature(predictor: Predictor, dataset: FrameDataset) -> Fit:
    """Find the temperature for the frames of a data set.

    Args:
        predictor: of the checkpoint.
        dataset: frames with labels, on which the network was not trained: it is surer of those.

    Raises:
        SartmError: a frame has no labels, or no temperature within `RANGE` is the best.
    """
    logits, truth = _sample_pixels(predictor, dataset)
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _negative_log_likelihood(logits / log_temperature.exp(), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    temperature = float(log_temperature.detach().exp())
    if not RANGE[0] <= temperature <= RANGE[1]:
        raise SartmError(
            f'no temperature fits these {len(dataset)} frames ({temperature:.3g} was tried last); '
            'expected frames on which some pixels are predicted right and some wrong'
        )
    return Fit(temperature, _ece(logits, truth), _ece(logits / temperature, truth))


def with_temperature(checkpoint: Checkpoint, temperature: float) -> Checkpoint:
    """Return a checkpoint whose logits are those of another one, divided by a temperature.

    The weights of the last layers are divided, so that inference has nothing more to compute. The
    model card says by how much, over all calibrations of the checkpoint.

    Raises:
        SartmError: the family of networks does not say which layers these are.
    """
    patterns = model_class(checkpoint.config.name).LOGIT_LAYERS
    if not patterns:
        raise SartmError(
            f'checkpoint {checkpoint.path} is of {checkpoint.config.name}, whose class names no '
            'LOGIT_LAYERS; it cannot be calibrated'
        )
    layer = re.compile(f'({"|".join(patterns)})' + r'\.(weight|bias)')
    state = {
        name: (value.double() / temperature).to(value.dtype) if layer.fullmatch(name) else value
        for name, value in checkpoint.state.items()
    }
    total = temperature * checkpoint.card.get('temperature', 1.0)
    return replace(checkpoint, state=state, card={**checkpoint.card, 'temperature': total})


def _sample_pixels(predictor: Predictor, dataset: FrameDataset) -> tuple[Tensor, Tensor]:
    """Return logits of labelled pixels, float32 `[M, K, N]`, and their true ids, int64 `[N]`."""
    from tqdm import tqdm

    generator = torch.Generator().manual_seed(0)
    per_frame = max(1, MAX_PIXELS // max(1, len(dataset)))
    logits, truth = [], []
    bar = tqdm(dataset, total=len(dataset), unit='frame', disable=not sys.stderr.isatty())
    for frame in bar:
        if frame.labels is None:
            raise SartmError(f'frame {frame.name} has no labels; expected a split with labels')
        labels = torch.from_numpy(frame.labels).flatten()
        [labelled] = (labels != IGNORE_ID).nonzero(as_tuple=True)
        drawn = labelled[torch.randperm(len(labelled), generator=generator)[:per_frame]]
        images = predictor.preprocess(frame.select(predictor.modalities)).images
        of_frame = predictor.logits(images).float().cpu()
        logits.append(of_frame.flatten(2)[:, :, drawn])
        truth.append(labels[drawn].long())
    return torch.cat(logits, dim=2), torch.cat(truth)


def _negative_log_likelihood(logits: Tensor, truth: Tensor) -> Tensor:
    of_truth = F.log_softmax(logits, dim=1)[:, truth, torch.arange(len(truth))]  # [M, N]
    return math.log(len(logits)) - of_truth.logsumexp(dim=0).mean()


def _ece(logits: Tensor, truth: Tensor) -> float:
    labels, confidence = labels_and_confidence(class_probabilities(logits[..., None]))
    calibration = Calibration()
    calibration.update(labels[:, 0].numpy(), confidence[:, 0].numpy(), truth.numpy())
    ece: float = calibration.compute()['ece']
    return ece
