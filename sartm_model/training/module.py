"""SARTM as a Lightning module: the step, the schedule and the averaged weights."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sartm_model.config import TrainConfig
from sartm_model.errors import SartmError
from sartm_model.network import Sartm
from sartm_model.training.augment import Sample
from sartm_model.training.losses import ohem_cross_entropy


class SartmTraining(pl.LightningModule):
    """Trains `model` by eq. 15's first two terms; `averaged` holds what is measured and saved."""

    def __init__(self, model: Sartm, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.ema = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """One batch: OHEM cross-entropy on both heads."""
        output = self.model(batch.rgb, batch.thermal, batch.absent)
        loss = self.config.loss
        weights = torch.tensor(loss.class_weights, device=self.device)
        mask, auxiliary = (
            ohem_cross_entropy(
                logits,
                batch.labels,
                probability=loss.ohem_probability,
                min_fraction=loss.ohem_min_fraction,
                class_weights=weights if loss.class_weights else None,
            )
            for logits in (output.mask_logits, output.auxiliary_logits)
        )
        total = mask + loss.auxiliary * auxiliary
        if not torch.isfinite(total):
            raise SartmError(
                f'the loss is {total.item()} at step {self.global_step}; lower optim.lr, or use '
                f'precision=32-true or bf16-mixed'
            )
        self.log_dict({'loss': total, 'mask': mask, 'auxiliary': auxiliary}, prog_bar=True)
        return total

    def on_train_batch_end(self, *_: Any) -> None:
        """Follow the step with the averaged weights."""
        self.ema.update_parameters(self.model)

    def _average(self, averaged: Any, current: Any, count: Any) -> None:
        """Exponential average whose decay grows with the steps, up to `ema_decay`.

        Else the random weights of the start would be a fifth of it after 800 steps at 0.998.
        """
        decay = min(self.config.ema_decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(averaged, current, count)

    def averaged(self) -> Sartm:
        """A copy of the model with the averaged weights, in evaluation mode."""
        return cast(Sartm, copy.deepcopy(self.ema.module).eval())

    def configure_optimizers(self) -> Any:
        """AdamW, no decay on 1-D parameters; linear warm-up from a tenth, then polynomial decay."""
        optim = self.config.optim
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {'params': [p for p in trained if p.ndim > 1], 'weight_decay': optim.weight_decay},
            {'params': [p for p in trained if p.ndim <= 1], 'weight_decay': 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=optim.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return [optimizer], [{'scheduler': scheduler, 'interval': 'step'}]

    def _rate(self, step: int) -> float:
        """The learning rate of a step as a part of its peak."""
        optim = self.config.optim
        warmup = max(1, round(optim.warmup_fraction * self.config.steps))
        climb = min(1.0, 0.1 + 0.9 * step / warmup)
        done = min(1.0, step / self.config.steps)
        return climb * (1 - done) ** optim.power
