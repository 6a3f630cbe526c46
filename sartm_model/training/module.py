"""A model as a Lightning module: training step, validation, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from sartm_model.config import TrainConfig
from sartm_model.data.augmentation import Sample
from sartm_model.data.eval_frames import EvalFrame
from sartm_model.data.transforms import network_inputs
from sartm_model.errors import SartmError
from sartm_model.evaluation.metrics import ConfusionMatrix
from sartm_model.labels import LabelSpace
from sartm_model.models.base import SegmentationModel, SegmentationOutput
from sartm_model.models.logits import labels_and_confidence
from sartm_model.training.compiled_forward import compiled_forward, errors_of_compilation
from sartm_model.training.data_module import TrainingData
from sartm_model.training.loss_table import LossInputs, loss_terms
from sartm_model.training.losses import Prototypes


class SegmentationTraining(pl.LightningModule):
    """Trains a model with the terms of `loss_table` and measures its mIoU on `data.val`.

    Args:
        model: not merged.
        config: of the run.
        label_space: of the run, K classes.
        text_embeddings: of the class names, as the function of this name returns them; None without
            the term `language`.
        class_weights: of the loss, in place of `loss.class_balance`; empty for none.
    """

    def __init__(
        self,
        model: SegmentationModel,
        config: TrainConfig,
        label_space: LabelSpace,
        text_embeddings: Tensor | None = None,
        class_weights: Sequence[float] = (),
    ) -> None:
        super().__init__()
        # Convolutions are faster with the channels of a pixel beside each other.
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled_forward: Callable[..., SegmentationOutput] | None = None
        self.config = config
        self.label_space = label_space
        self.loss_terms = loss_terms(config.loss, model)
        for head in model.HEADS.keys() - {term.name for term in self.loss_terms}:
            # DDP would wait for gradients that never come.
            model.head(head).requires_grad_(False)
        self.prototypes = Prototypes(len(label_space), model.semantic_channels)
        self.text_embeddings: Tensor | None
        # Not part of the saved state: the run's folder has them in a file of their own.
        self.register_buffer('text_embeddings', text_embeddings, persistent=False)
        self.loss_config = config.loss
        if class_weights:
            weights = list(class_weights)
            self.loss_config = replace(config.loss, class_weights=weights, class_balance=0.0)

    @property
    def data(self) -> TrainingData:
        """The frames of the run."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, TrainingData)
        return data

    def on_fit_start(self) -> None:
        """Have the network compiled at the first batch, if `compile` is set."""
        if self.config.compile:
            self._compiled_forward = compiled_forward(self.model, self.device)

    def forward(self, *args: Any, **options: Any) -> SegmentationOutput:
        """Run the network, compiled if `compile` is set."""
        run = self._compiled_forward or self.model
        outputs: SegmentationOutput = run(*args, **options)
        return outputs

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """The loss of a batch, the weighted sum of its terms (eq. 15), each of which is logged.

        What a network draws, such as what dropout hides, depends on the seed, the number of the
        batch and the process, so that a resumed run draws what it would have drawn.

        Raises SartmError naming the frames if the loss is not finite.
        """
        accumulate = self.config.optim.accumulate
        number = self.global_step * accumulate + index % accumulate
        drawn = np.random.SeedSequence([self.config.seed, number, self.global_rank])
        torch.manual_seed(int(drawn.generate_state(1)[0]))
        # A modality that is trained alone is never dropped, and the others are not there.
        drop_mask = None
        if self.config.data.modality == 'both':
            drop_mask = batch.full_drop_mask(self.model.config.modalities)
        images = {
            name: image.contiguous(memory_format=torch.channels_last)
            for name, image in batch.inputs().items()
        }
        encode_options = {'embeddings': batch.embeddings} if batch.embeddings else {}
        inputs = LossInputs(
            self.forward(images, drop_mask, **encode_options),
            batch.labels.long(),
            self.loss_config,
            self.prototypes,
            self.text_embeddings,
            batch.excluded if self.label_space.views else None,
        )
        values = {term.name: term.function(inputs) for term in self.loss_terms}
        weighted = [term.weight * values[term.name] for term in self.loss_terms]
        total = torch.stack(weighted).sum()
        if not torch.isfinite(total):
            raise SartmError(
                f'the loss is {total.item()} at step {self.global_step + 1}, on '
                f'{", ".join(batch.name)}; look at these frames, lower optim.lr, or use '
                f'precision=32-true or bf16-mixed'
            )
        self.log_dict({'loss': total, **values}, prog_bar=True)
        lr = self.config.optim.lr * lr_factor(self.config, self.global_step)
        # Lightning's loggers take `step` for the number of the step, which they would count from 0.
        self.log_dict({'lr': lr, 'step': self.global_step + 1.0})
        return total

    def backward(self, loss: Tensor, *args: Any, **options: Any) -> None:
        """Compute the gradients. Raises SartmError where they cannot be compiled."""
        with errors_of_compilation() if self._compiled_forward else nullcontext():
            super().backward(loss, *args, **options)

    def on_validation_epoch_start(self) -> None:
        """Start with an empty confusion matrix for each data set."""
        self.confusions = [ConfusionMatrix(len(space)) for space in self.data.val_spaces]

    def validation_step(self, frame: EvalFrame, index: int) -> Tensor:
        """Predict a frame at its own size and count it; returns the labels, uint8 `[H, W]`.

        The weights are the averaged ones: see `callbacks.AveragedWeights`.
        """
        if self.label_space.views:
            own = self.data.val_spaces[frame.source]
            self.model.select_classes(self.label_space.ids_of(own))
        labels, _ = labels_and_confidence(self.model.segment(network_inputs(frame.images))[0])
        self.confusions[frame.source].update(labels.cpu().numpy(), frame.labels.cpu().numpy())
        return labels

    def on_validation_epoch_end(self) -> None:
        """Sum the counts of all processes and log the figures as `val_...`, in percent.

        Of several data sets each has its own, such as `val_miou/NAME`; `val_miou` is their mean.
        """
        values: dict[str, float] = {}
        mious = []
        names, spaces = self.data.val_names, self.data.val_spaces
        for name, confusion, space in zip(names, self.confusions, spaces, strict=True):
            counts = torch.from_numpy(confusion.counts).to(self.device)
            summed = self.trainer.strategy.reduce(counts, reduce_op='sum')
            confusion.counts = summed.cpu().numpy()
            figures = confusion.compute(space)
            prefix = f'{name}/' if len(names) > 1 else ''
            if prefix:
                values[f'val_miou/{name}'] = figures['miou']
            for class_name, iou in figures['per_class_iou'].items():
                values[f'val_iou/{prefix}{class_name}'] = iou or 0.0
            mious.append(figures['miou'])
        # On every process, because early stopping and the choice of the best model run on each.
        # The values are equal already; without sync_dist Lightning warns that they may not be.
        values |= {'val_miou': sum(mious) / len(mious), 'step': float(self.global_step)}
        self.log_dict(values, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW without weight decay for 1-D parameters, and the schedule of `lr_factor`."""
        optim = self.config.optim
        groups: dict[tuple[float, float], list[Tensor]] = {}  # (learning rate, decay) -> parameters
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                factor = optim.encoder_lr_factor if name.startswith(self.model.ENCODER) else 1.0
                decay = optim.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((factor * optim.lr, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {'params': parameters, 'lr': lr, 'weight_decay': decay}
                for (lr, decay), parameters in groups.items()
            ],
            # All parameters in one kernel. In half precision, where Lightning unscales the
            # gradients before they are clipped, it refuses such an optimiser.
            fused=self.device.type == 'cuda' and self.trainer.precision != '16-mixed',
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(lr_factor, self.config))
        return [optimizer], [{'scheduler': scheduler, 'interval': 'step'}]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients; Lightning itself refuses to with a fused optimiser."""
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group['params']]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)


def lr_factor(config: TrainConfig, step: int) -> float:
    """Learning rate of a step relative to `optim.lr`: linear warm-up, polynomial decay."""
    optim = config.optim
    warmup_steps = max(1, round(optim.warmup_fraction * config.steps))
    warmup = min(1.0, 0.1 + 0.9 * step / warmup_steps)
    progress = min(1.0, step / config.steps)
    return warmup * (1 - progress) ** optim.power
