"""SARTM as a Lightning module: the step, the schedule, the averaged weights and the measuring."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from sartm_model.config import TrainConfig
from sartm_model.data.augmentation import Sample
from sartm_model.data.sampling import (
    EvalDataset,
    EvalFrame,
    ResumableBatchSampler,
    TrainingSamples,
    open_source,
)
from sartm_model.data.transforms import ThermalRange, network_inputs
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix, metrics
from sartm_model.labels import LabelSpace
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.model import SartmOutput
from sartm_model.training.losses import (
    Prototypes,
    class_means,
    language_loss,
    ohem_cross_entropy,
    prototype_loss,
)


class SartmTraining(pl.LightningModule):
    """Trains `model` by eq. 15; `averaged` holds what is measured and saved.

    Args:
        model: not merged.
        config: of the run.
        label_space: of the run.
        text: embeddings of the class names `[K, D]` and which classes have one, bool `[K]`; None
            where `loss.language` is 0.
    """

    def __init__(
        self,
        model: Sartm,
        config: TrainConfig,
        label_space: LabelSpace,
        text: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.label_space = label_space
        self.ema = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        self.ema.requires_grad_(False)  # several processes would wait for its gradients
        if not config.loss.weights.auxiliary:
            model.auxiliary_head.requires_grad_(False)  # several processes would wait for it
        self.prototypes = Prototypes(len(label_space), model.encoder.channels)
        self.text: Tensor | None
        self.known: Tensor | None
        for name, value in zip(('text', 'known'), text or (None, None), strict=True):
            self.register_buffer(name, value, persistent=False)  # cached beside the run
        self.samples = TrainingSamples(config.data, label_space, config.seed)
        self.measured = EvalDataset(open_source(config.data.val, label_space))

    def train_dataloader(self) -> DataLoader:
        """This process's batches, from the first that the run has not yet been trained on."""
        data, trainer = self.config.data, self.trainer
        first = trainer.global_step * self.config.optim.accumulate
        return DataLoader(
            self.samples,
            batch_sampler=ResumableBatchSampler(
                first, data.batch_size, trainer.global_rank, trainer.world_size
            ),
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            pin_memory=self.device.type == 'cuda',
        )

    def val_dataloader(self) -> DataLoader:
        """This process's part of the frames to measure on, one at a time."""
        processes = self.trainer.world_size
        if len(self.measured) < processes:
            raise SartmError(
                f'data.val has {len(self.measured)} frames for {processes} processes; expected one '
                f'each or more'
            )
        mine = range(self.trainer.global_rank, len(self.measured), processes)
        workers = min(2, self.config.data.workers)
        return DataLoader(self.measured, batch_size=None, sampler=mine, num_workers=workers)

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """One batch: the sum of eq. 15."""
        drop_mask = batch.drop_mask
        if self.config.data.modality != 'both':
            drop_mask = torch.zeros_like(drop_mask)
            drop_mask[:, 1 if self.config.data.modality == 'rgb' else 0] = True
        output = self.model(*batch.inputs(), drop_mask)
        terms = self._terms(output, batch.labels.long())
        weights = self.config.loss.weights._asdict()
        total = terms['mask'] + sum(weights[name] * terms[name] for name in terms if name != 'mask')
        if not torch.isfinite(total):
            raise SartmError(
                f'the loss is {total.item()} at step {self.global_step}, on '
                f'{", ".join(batch.name)}; look at these frames, lower optim.lr, or use '
                f'precision=32-true or bf16-mixed'
            )
        self.log_dict({'loss': total, **terms}, prog_bar=True)
        self.log('lr', self.trainer.optimizers[0].param_groups[0]['lr'])
        return total

    def _terms(self, output: SartmOutput, labels: Tensor) -> dict[str, Tensor]:
        """The terms of eq. 15 that have a weight: `mask`, `auxiliary`, `prototype`, `language`."""
        loss = self.config.loss
        class_weights = torch.tensor(loss.class_weights, device=self.device)

        def heads_loss(logits: Tensor) -> Tensor:
            return ohem_cross_entropy(
                logits,
                labels,
                probability=loss.ohem_probability,
                min_fraction=loss.ohem_min_fraction,
                class_weights=class_weights if loss.class_weights else None,
            )

        terms = {'mask': heads_loss(output.mask_logits)}
        if loss.weights.auxiliary:
            terms['auxiliary'] = heads_loss(output.auxiliary_logits)
        if loss.weights.prototype or loss.weights.language:
            features = class_means(output.fused.sfm, labels, len(self.label_space))
            means, present = features.means, features.present
            if loss.weights.prototype:
                terms['prototype'] = prototype_loss(self.prototypes, means, present)
                self.prototypes.update(means, features.counts)
            if loss.weights.language:
                assert self.text is not None
                assert self.known is not None
                terms['language'] = language_loss(means, present, self.text, self.known)
        return terms

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Follow each step with the averaged weights, before anything is saved."""
        super().optimizer_step(*args, **kwargs)
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

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.confusion = ConfusionMatrix(len(self.label_space))

    def validation_step(self, frame: EvalFrame, index: int) -> Tensor:
        """Predict one frame at its own size by the averaged weights; the labels, uint8 `[H, W]`."""
        model = cast(Sartm, self.ema.module)
        modality = self.config.data.modality
        inputs = network_inputs(
            None if modality == 'thermal' else frame.rgb,
            None if modality == 'rgb' else frame.thermal,
            ThermalRange(),
        )
        labels = model.segment(*inputs)[0].argmax(dim=0).to(torch.uint8)
        self.confusion.update(labels.cpu().numpy(), frame.labels.cpu().numpy())
        return labels

    def on_validation_epoch_end(self) -> None:
        """Add up what all processes counted and log the figures as `val_...`, in percent."""
        counts = torch.from_numpy(self.confusion.counts).to(self.device)
        summed = self.trainer.strategy.reduce(counts, reduce_op='sum')
        self.confusion.counts = summed.cpu().numpy()
        figures = metrics(self.confusion, self.label_space)
        self.log('val_miou', figures['miou'], rank_zero_only=True)
        for name, iou in figures['per_class_iou'].items():
            self.log(f'val_iou/{name}', iou or 0.0, rank_zero_only=True)

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
