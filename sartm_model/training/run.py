"""`sartm train`: from a configuration to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader
from tqdm import tqdm

from sartm_model import checkpoint as checkpoints
from sartm_model.config import TrainConfig, load_train_config, to_dict
from sartm_model.datasets.base import Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import evaluate
from sartm_model.labels import LABEL_SPACES, LabelSpace
from sartm_model.network import Sartm
from sartm_model.predictor import Predictor
from sartm_model.training.data import TrainingSamples, open_source
from sartm_model.training.module import SartmTraining


def train(config_path: Path, out: Path, overrides: Sequence[str] = ()) -> Path:
    """Train a model and leave it in a folder.

    Args:
        config_path: YAML of a `TrainConfig`.
        out: receives `config.yaml`, `last.safetensors`, `best.safetensors` (by val mIoU) and the
            logged losses, `metrics.csv`.
        overrides: `key=value`, laid over the file.

    Returns:
        The path of `last.safetensors`.

    Raises:
        SartmError: a setting, a data set or a file that cannot be used, or a loss that diverges.
    """
    config = load_train_config(config_path, overrides)
    out.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(to_dict(config)))
    (out / 'config.yaml').write_text(yaml.safe_dump(plain, sort_keys=False))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    label_space = LABEL_SPACES[config.label_space]
    if len(config.loss.class_weights) not in (0, len(label_space)):
        raise SartmError(
            f'loss.class_weights has {len(config.loss.class_weights)} values; expected '
            f'{len(label_space)}, one a class of {label_space.name}, or none'
        )
    model = _start(config, label_space)
    loader = DataLoader(
        TrainingSamples(config.data, label_space, config.seed),
        batch_size=config.data.batch_size,
        num_workers=config.data.workers,
        persistent_workers=config.data.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    save = _SaveAndMeasure(config, label_space, out)
    trainer = pl.Trainer(
        accelerator={'auto': 'auto', 'cpu': 'cpu', 'cuda': 'gpu'}[config.device],
        devices=1,
        precision=cast(Any, config.precision),
        max_steps=config.steps,
        gradient_clip_val=config.optim.clip_norm,
        logger=CSVLogger(out, name='', version=''),
        callbacks=[save, TQDMProgressBar(refresh_rate=10)],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    trainer.fit(SartmTraining(model, config), loader)
    return out / 'last.safetensors'


def _start(config: TrainConfig, label_space: LabelSpace) -> Sartm:
    """The model a run starts from: random, SAM2's weights, or an earlier checkpoint."""
    if config.resume:
        earlier = checkpoints.load(config.resume)
        if earlier.label_space.classes != label_space.classes:
            raise SartmError(
                f'checkpoint {earlier.path} has the classes of {earlier.label_space.name}, but the '
                f'run is set to label_space {label_space.name}'
            )
        if earlier.config != config.model:
            raise SartmError(
                f'checkpoint {earlier.path} is of {earlier.config}, but the run is set to '
                f'{config.model}'
            )
        return checkpoints.build(earlier, merged=False).train()
    model = Sartm(config.model, len(label_space))
    if config.sam2_weights:
        checkpoints.load_sam2(model, Path(config.sam2_weights))
    return model


class _SaveAndMeasure(Callback):
    """Every `val_every` steps and at the end: save the averaged weights and measure them."""

    def __init__(self, config: TrainConfig, label_space: LabelSpace, out: Path) -> None:
        self.config = config
        self.label_space = label_space
        self.out = out
        self.val = open_source(config.data.val, label_space)
        self.best = -1.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.config.val_every == 0 or step == self.config.steps:
            self._save_and_measure(trainer, module, step)

    def _save_and_measure(self, trainer: pl.Trainer, module: Any, step: int) -> None:
        last = self.out / 'last.safetensors'
        card = {'config': to_dict(self.config), 'steps': step}
        checkpoints.save(last, module.averaged(), self.label_space, card)
        device = 'cuda' if module.device.type == 'cuda' else 'cpu'
        predictor = Predictor(last, device=device, precision='fp32')

        def predict(frame: Frame) -> Any:
            return predictor.predict(frame.rgb, frame.thermal).labels

        miou = evaluate(predict, self.val)['miou']
        module.log('val_miou', miou)
        # A line of its own, which a redirected log keeps and a progress bar overwrites.
        tqdm.write(f'step {step}: val mIoU {miou:.1f} %')
        if miou > self.best:
            self.best = miou
            checkpoints.save(
                self.out / 'best.safetensors',
                module.averaged(),
                self.label_space,
                {**card, 'val_miou': miou},
            )
