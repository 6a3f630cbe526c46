"""Lightning callbacks of a run: averaged weights, saved state, best model, logged predictions."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from sartm_model.config import TrainConfig, to_dict
from sartm_model.data.eval_frames import EvalFrame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.base import SegmentationModel
from sartm_model.training.module import SegmentationTraining
from sartm_model.utils.versions import version_of
from sartm_model.utils.visualization import shrink

STATE_FILE = 'last.ckpt'
LAST_MODEL = 'last.safetensors'
BEST_MODEL = 'best.safetensors'
NUM_LOGGED_FRAMES = 4
"""Frames of `data.val` whose predictions are logged."""


class AveragedWeights(WeightAveraging):
    """Keeps an exponential moving average of the weights, which is what is validated and saved.

    Lightning's callback updates the average after each optimiser step, exchanges it with the
    weights during validation and saves both. The decay grows with the number n of steps as
    min(`decay`, (1 + n) / (10 + n)), so that the random weights of the start fade quickly. Frozen
    weights, which may be many, are not copied and not averaged.

    Args:
        decay: the final decay; 0 makes the average equal to the weights.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay
        self._is_exchanged = False  # the average with the weights, during a measurement

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the average on the training device; the model itself is still on the CPU."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the average have the frozen weights of the model; now both are on the device."""
        assert self._average_model is not None
        averaged = self._average_model.module.parameters()
        for average, current in zip(averaged, pl_module.parameters(), strict=True):
            if not current.requires_grad:
                average.data = current.data

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the weights back to the module if an error ended a measurement."""
        if self._is_exchanged:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_exchanged = not self._is_exchanged

    @property
    def model(self) -> SegmentationModel:
        """The model with the averaged weights."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, SegmentationTraining)
        return module.model

    def _average(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))
        pairs = zip(averaged, current, strict=True)
        changing = [pair for pair in pairs if pair[0].data_ptr() != pair[1].data_ptr()]
        if changing:
            get_ema_multi_avg_fn(decay)(*map(list, zip(*changing, strict=True)), count)


TERMINATED = 128 + signal.SIGTERM
"""The exit status that a shell reports of a process ended by SIGTERM."""


class ResumeCheckpoint(Callback):
    """Writes the state for `--resume`, `last.ckpt`, and the model `last.safetensors`.

    Both are written after each measurement, which is part of the state; at the end of the run; and
    when SIGTERM or SIGINT asks the run to stop. The step under way is finished first, and so is the
    measurement that is due after it.

    They are also written when an error ends the run between two steps, such as a file that cannot
    be read, or in a measurement, which a resumed run makes again. An error within a step, such as a
    loss that is not finite, leaves what was saved before: parts of that step are in the module, and
    the weights may be useless. So does an error in a run of several processes, where the others do
    not take part in saving.

    It is the last callback of a run, so that the state has what the others made of a measurement.

    Args:
        config: of the run.
        out: folder of the run.
        averaged: the callback that holds the weights to save.

    Attributes:
        stopped_by: the signal that stopped the run, the same in every process; None if none did.
        is_measured: false while a measurement is due after the last step and not made.
    """

    def __init__(self, config: TrainConfig, out: Path, averaged: AveragedWeights) -> None:
        self.config = config
        self.out = out
        self.averaged = averaged
        self.stopped_by: signal.Signals | None = None
        self.is_measured = True
        self._received = 0  # number of the signal that this process got
        self._is_unsaved = False  # the state after a whole step, in which nothing has begun since

    def state_dict(self) -> dict[str, Any]:
        """Whether a measurement is due."""
        return {'is_measured': self.is_measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.is_measured = state['is_measured']

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Handle the signals here; Lightning restores their handlers when the run ends."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, _: Any) -> None:
        self._received = number
        # A second signal interrupts at once, without waiting for the step.
        signal.signal(number, signal.default_int_handler)

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, index: int
    ) -> None:
        """Note that a step begins."""
        self._is_unsaved = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """Stop if any process got a signal; save if no measurement follows the last step."""
        if (index + 1) % self.config.optim.accumulate:
            return
        # The signal may reach one process only, or each at another step. All of them take the same
        # decision here: a process that went on alone would wait for the others forever.
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        number = int(trainer.strategy.reduce(received, reduce_op='max'))
        if number:
            self.stopped_by = signal.Signals(number)
            trainer.should_stop = True
        step = trainer.global_step
        self._is_unsaved = True
        self.is_measured = step % self.config.val_every != 0
        if not self.is_measured:
            return  # a measurement follows, and then the state is saved
        if number:
            trainer.limit_val_batches = 0  # Lightning would validate once more before it stops
        if number or step == self.config.steps:
            self._save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Save after a measurement, but for that of a run that has ended."""
        if trainer.global_step % self.config.val_every == 0:
            self.is_measured = True
            self._save(trainer, module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Note that the other callbacks begin to use the measurement."""
        self._is_unsaved = False

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Save the state of the last step, if it is whole."""
        if not self._is_unsaved or trainer.world_size > 1:
            return
        if not self.is_measured:
            # Lightning makes a measurement again that has stopped in its first frame, and no other.
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
        with suppress(Exception):  # the error that has ended the run is the one to report
            self._save(trainer, module)
            tqdm.write(
                f'the state of step {trainer.global_step} is in {self.out / STATE_FILE}; the same '
                'command with --resume continues the run'
            )

    def report(self, trainer: pl.Trainer) -> None:
        """Print that a signal ended the run, and end this process as the signal would have.

        Ctrl-C raises KeyboardInterrupt; SIGTERM raises SystemExit in the first process, whose exit
        status is that of the run.
        """
        if self.stopped_by and trainer.is_global_zero:
            print(f'stopped by {self.stopped_by.name}; the state is in {self.out / STATE_FILE}')
            print('the same command with --resume continues the run')
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stopped_by == signal.SIGTERM and trainer.is_global_zero:
            raise SystemExit(TERMINATED)

    def _save(self, trainer: pl.Trainer, module: SegmentationTraining) -> None:
        self._is_unsaved = False
        path, temporary = self.out / STATE_FILE, self.out / f'.{STATE_FILE}'
        try:
            trainer.save_checkpoint(temporary, weights_only=False)  # with optimiser and callbacks
            if trainer.is_global_zero:
                # Before the state, after which nothing is left to do in a run that has ended.
                save_model(self.out / LAST_MODEL, self.averaged.model, trainer, module)
                os.replace(temporary, path)
        except OSError as error:
            raise SartmError(
                f'{error.filename or path} cannot be written ({error.strerror}); the state that '
                f'was saved before is intact, and --resume continues from it'
            ) from error
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)


class BestCheckpoint(Callback):
    """Writes `best.safetensors` whenever the mIoU on `data.val` is the highest so far.

    It also prints each measurement.

    Args:
        out: folder of the run.
        averaged: the callback that holds the weights to save.
    """

    def __init__(self, out: Path, averaged: AveragedWeights) -> None:
        self.out = out
        self.averaged = averaged
        self.best_miou = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """The highest mIoU so far."""
        return {'best_miou': self.best_miou}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.best_miou = state['best_miou']

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Save the model if it is the best; of two equal ones the earlier one stays."""
        if not trainer.is_global_zero:
            return
        miou = float(trainer.callback_metrics['val_miou'])
        # tqdm.write ends the line, so that the progress bar does not overwrite it.
        tqdm.write(f'step {trainer.global_step}: val mIoU {miou:.1f} %')
        if miou > self.best_miou:
            self.best_miou = miou
            save_model(self.out / BEST_MODEL, self.averaged.model, trainer, module, val_miou=miou)


class LogPredictions(Callback):
    """Logs the first frames of `data.val` to TensorBoard: images, labels, prediction, shrunk."""

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: Any,
        labels: Any,
        frame: EvalFrame,
        index: int,
        dataloader: int = 0,
    ) -> None:
        """Log one frame; `labels` are the predicted ids, uint8 `[H, W]`."""
        if index >= NUM_LOGGED_FRAMES or not trainer.is_global_zero:
            return
        palette = module.data.val_spaces[frame.source].palette()
        images = (
            shrink(MODALITIES[name].show(x.cpu().numpy())) for name, x in frame.images.items()
        )
        colored = [
            palette[shrink(ids.cpu().numpy(), cv2.INTER_NEAREST)] for ids in (frame.labels, labels)
        ]
        panel = np.concatenate([*(_resize_to(x, colored[0]) for x in images), *colored], axis=1)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image(
                    f'val/{frame.name}', panel, trainer.global_step, dataformats='HWC'
                )


class Progress(TQDMProgressBar):
    """Lightning's progress bar with the right total: Lightning takes steps for batches."""

    @property
    def total_train_batches(self) -> int:
        """Batches of the whole run."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches


def save_model(
    path: Path,
    model: SegmentationModel,
    trainer: pl.Trainer,
    module: SegmentationTraining,
    **card: Any,
) -> None:
    """Write a model; its card gets the run's configuration, step and versions, and `card`."""
    versions = {'sartm': version_of('sartm_ros'), 'torch': version_of('torch')}
    run = {'config': to_dict(module.config), 'steps': trainer.global_step, 'versions': versions}
    card = {**run, **card}
    checkpoints.save(path, model, module.label_space, card)


def _resize_to(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Resize an image `[h, w(, C)]` to the height and width of another, linearly."""
    if image.shape[:2] == other.shape[:2]:
        return image
    return cv2.resize(image, (other.shape[1], other.shape[0]), interpolation=cv2.INTER_LINEAR)
