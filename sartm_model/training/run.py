"""`sartm train`: from a configuration to a checkpoint."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from sartm_model.config import TrainConfig, differences, load_train_config, to_dict
from sartm_model.errors import SartmError
from sartm_model.labels import LABEL_SPACES, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.training.callbacks import (
    STATE,
    LogPictures,
    Progress,
    ResumeCheckpoint,
    TopKCheckpoint,
)
from sartm_model.training.module import SartmTraining
from sartm_model.training.text_teacher import text_embeddings
from sartm_model.utils.files import write_file

METRICS = 'metrics.csv'
# What may differ between a run and its resumption: it changes the speed and not the samples.
_FREE_TO_CHANGE = ('data.workers', 'device')


def train(
    config_path: Path, out: Path, overrides: Sequence[str] = (), *, resume: bool = False
) -> Path:
    """Train a model and leave it in a folder.

    Args:
        config_path: YAML of a `TrainConfig`.
        out: receives `config.yaml`, the models `last.safetensors` and `best.safetensors` (by val
            mIoU), the state `last.ckpt`, the figures `metrics.csv` (those before a resumption in
            `metrics_1.csv` and so on) and TensorBoard's `events`.
        overrides: `key=value`, laid over the file.
        resume: go on with the run in `out`, from its `last.ckpt`; the losses are those of a run
            that was never stopped.

    Returns:
        The path of `last.safetensors`.

    Raises:
        SartmError: a setting, a data set or a file that cannot be used, or a loss that diverges.
        KeyboardInterrupt: Ctrl-C; the state is saved.
    """
    config = load_train_config(config_path, overrides)
    state = _enter(out, config, resume)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    label_space = LABEL_SPACES[config.label_space]
    if len(config.loss.class_weights) not in (0, len(label_space)):
        raise SartmError(
            f'loss.class_weights has {len(config.loss.class_weights)} values; expected '
            f'{len(label_space)}, one a class of {label_space.name}, or none'
        )
    text = None
    if config.loss.weights.language:
        text = text_embeddings(config.text, label_space, out)
    module = SartmTraining(_start(config, label_space), config, label_space, text)
    keep_state = ResumeCheckpoint(config, out)
    trainer = _trainer(config, out, keep_state)
    try:
        # weights_only: the state is tensors and plain values, and no code is read with it.
        trainer.fit(module, ckpt_path=state, weights_only=True)
        if not keep_state.stopped_by and trainer.global_step % config.val_every:
            trainer.validate(module, verbose=False)
    except SartmError as error:
        # A loader's process sends its traceback as the message; the fault is its last line.
        message = str(error).strip().splitlines()[-1]
        raise SartmError(message.removeprefix('sartm_model.errors.SartmError: ')) from error
    keep_state.report()
    return out / 'last.safetensors'


def _enter(out: Path, config: TrainConfig, resume: bool) -> Path | None:
    """Claim the run's folder; the state to resume from, or None for a new run."""
    state, written = out / STATE, out / 'config.yaml'
    if not resume:
        if state.exists():
            raise SartmError(
                f'{out} holds a run already; --resume goes on with it, or choose another folder'
            )
        if _is_first_process():
            plain = json.loads(json.dumps(to_dict(config)))
            write_file(written, yaml.safe_dump(plain, sort_keys=False))
        return None
    if not state.is_file() or not written.is_file():
        raise SartmError(f'{out} has no {STATE} and config.yaml of a run to resume')
    differing = [
        difference
        for difference in differences(load_train_config(written), config)
        if not difference.startswith(_FREE_TO_CHANGE)
    ]
    if differing:
        raise SartmError(
            f'the run in {out} was set otherwise: {"; ".join(differing)}; resume it with its own '
            f'settings, or start a new run from its last.safetensors by start_from'
        )
    if _is_first_process() and (out / METRICS).exists():
        # Lightning begins the file anew.
        number = 1 + sum(1 for _ in out.glob('metrics_*.csv'))
        os.replace(out / METRICS, out / f'metrics_{number}.csv')
    return state


def _is_first_process() -> bool:
    """Of those that torchrun or Lightning started; the first alone writes."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'


def _start(config: TrainConfig, label_space: LabelSpace) -> Sartm:
    """The model a run starts from: random, SAM2's weights, or an earlier checkpoint."""
    if config.start_from:
        earlier = checkpoints.load(config.start_from)
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


def _trainer(config: TrainConfig, out: Path, keep_state: ResumeCheckpoint) -> pl.Trainer:
    # Lightning's remarks on its own products and on numbers of workers are not about the run.
    for name in ('pytorch_lightning.utilities.rank_zero', 'lightning_fabric.utilities.seed'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')
    warnings.filterwarnings('ignore', message='.*isinstance.treespec, LeafSpec.*')
    warnings.filterwarnings('ignore', message='.*exists and is not empty.*')
    on_gpu = config.device != 'cpu' and torch.cuda.is_available()
    several = config.devices * config.nodes > 1
    callbacks: list[Any] = [
        keep_state,
        TopKCheckpoint(config, out),
        LogPictures(),
        Progress(refresh_rate=10),
    ]
    if config.patience:
        callbacks.append(EarlyStopping('val_miou', mode='max', patience=config.patience))
    return pl.Trainer(
        accelerator={'auto': 'auto', 'cpu': 'cpu', 'cuda': 'gpu'}[config.device],
        devices=config.devices,
        num_nodes=config.nodes,
        strategy='ddp' if several else 'auto',
        sync_batchnorm=several and on_gpu,
        use_distributed_sampler=False,
        precision=cast(Any, config.precision),
        max_steps=config.steps,
        accumulate_grad_batches=config.optim.accumulate,
        gradient_clip_val=config.optim.clip_norm,
        # Steps are counted in batches here, and over the whole run.
        val_check_interval=config.val_every * config.optim.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=[
            CSVLogger(out, name='', version=''),
            TensorBoardLogger(out, name='', version='', sub_dir='events'),
        ],
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=min(20, config.val_every),
    )
