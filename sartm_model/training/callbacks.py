"""What happens around the steps of a run: its state kept, the best models kept, a clean stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from tqdm import tqdm

from sartm_model.config import TrainConfig, to_dict
from sartm_model.data.sampling import EvalFrame
from sartm_model.errors import SartmError
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.module import SartmTraining

STATE = 'last.ckpt'
PICTURES = 4  # frames of `data.val` whose predictions are logged


class ResumeCheckpoint(Callback):
    """Writes `last.ckpt`, all that `--resume` needs, and the model `last.safetensors`.

    Every `val_every` steps, at the end, and where SIGTERM or SIGINT asks the run to stop: that is
    done after the step under way.
    """

    def __init__(self, config: TrainConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.stopped_by: signal.Signals | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take over the signals; Lightning gives them back when the run ends."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, _: Any) -> None:
        self.stopped_by = signal.Signals(number)
        # Who asks twice does not want to wait for the step.
        signal.signal(number, signal.default_int_handler)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if (index + 1) % self.config.optim.accumulate:
            return
        step = trainer.global_step
        # The signal reaches the processes of a run at different steps; they stop at one.
        stop = trainer.strategy.reduce_boolean_decision(self.stopped_by is not None, all=False)
        if stop or step % self.config.val_every == 0 or step == self.config.steps:
            self._save(trainer, module)
        if stop:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # else Lightning would measure once more

    def report(self) -> None:
        """Say that a signal ended the run, and pass Ctrl-C on as KeyboardInterrupt."""
        if self.stopped_by:
            print(f'stopped by {self.stopped_by.name}; the state is in {self.out / STATE}')
            print('the same command with --resume goes on')
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer, module: SartmTraining) -> None:
        aside = self.out / f'.{STATE}'
        try:
            trainer.save_checkpoint(aside, weights_only=False)  # with optimiser and callbacks
            if trainer.is_global_zero:
                os.replace(aside, self.out / STATE)
        except OSError as error:
            raise SartmError(
                f'{self.out / STATE} cannot be written ({error.strerror}); what was saved before '
                f'is whole, and --resume goes on from there'
            ) from error
        finally:
            if trainer.is_global_zero:
                aside.unlink(missing_ok=True)
        if trainer.is_global_zero:
            save_model(self.out / 'last.safetensors', trainer, module)


class TopKCheckpoint(Callback):
    """Keeps the models that measured best on `data.val` and says how each measurement went.

    The best is `best.safetensors`, the next `best_2.safetensors` and so on, `keep_best` of them.
    """

    def __init__(self, config: TrainConfig, out: Path) -> None:
        self.config = config
        self.out = out
        self.mious: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """The kept models' mIoU, best first."""
        return {'mious': self.mious}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.mious = state['mious']

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        miou = float(trainer.callback_metrics['val_miou'])
        place = sum(better >= miou for better in self.mious)
        if place < self.config.keep_best:
            self.mious = [*self.mious[:place], miou, *self.mious[place:]][: self.config.keep_best]
        if not trainer.is_global_zero:
            return
        # A line of its own, which a redirected log keeps and a progress bar overwrites.
        tqdm.write(f'step {trainer.global_step}: val mIoU {miou:.1f} %')
        if place < self.config.keep_best:
            for number in range(len(self.mious) - 1, place, -1):
                os.replace(self._path(number - 1), self._path(number))
            save_model(self._path(place), trainer, module, val_miou=miou)

    def _path(self, place: int) -> Path:
        return self.out / ('best.safetensors' if place == 0 else f'best_{place + 1}.safetensors')


class LogPictures(Callback):
    """Shows TensorBoard the first frames of `data.val`: RGB, thermal, truth and prediction."""

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: Any,
        labels: Any,
        frame: EvalFrame,
        index: int,
        dataloader: int = 0,
    ) -> None:
        if index >= PICTURES or not trainer.is_global_zero:
            return
        palette = module.label_space.palette()
        rgb = frame.rgb.cpu().numpy()
        counts = frame.thermal.cpu().numpy().astype(np.float32)
        span = max(float(np.ptp(counts)), 1.0)
        thermal = np.repeat(((counts - counts.min()) * (255 / span))[..., None], 3, axis=2)
        if thermal.shape != rgb.shape:
            import cv2

            thermal = cv2.resize(thermal, (rgb.shape[1], rgb.shape[0]))
        maps = (palette[ids.cpu().numpy()] for ids in (frame.labels, labels))
        panel = np.concatenate([rgb, thermal.astype(np.uint8), *maps], axis=1)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image(
                    f'val/{frame.name}', panel, trainer.global_step, dataformats='HWC'
                )


class Progress(TQDMProgressBar):
    """Lightning's bar, which takes the number of steps for that of batches."""

    @property
    def total_train_batches(self) -> int:
        """Of the whole run."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches


def save_model(path: Path, trainer: pl.Trainer, module: SartmTraining, **card: Any) -> None:
    """Write the averaged model, with the run's configuration and step in its card."""
    card = {'config': to_dict(module.config), 'steps': trainer.global_step, **card}
    checkpoints.save(path, module.averaged(), module.label_space, card)
