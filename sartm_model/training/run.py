"""`sartm train`: run a training from its configuration to the checkpoints."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from sartm_model.config import STARTS, TrainConfig, load_train_config, with_absolute_paths
from sartm_model.data.sources import label_space_of_run
from sartm_model.errors import SartmError
from sartm_model.models.registry import build
from sartm_model.training.callbacks import (
    BEST_MODEL,
    LAST_MODEL,
    STATE_FILE,
    AveragedWeights,
    BestCheckpoint,
    LogPredictions,
    Progress,
    ResumeCheckpoint,
)
from sartm_model.training.data_module import TrainingData
from sartm_model.training.initial_model import initial_model, model_config_of
from sartm_model.training.loss_table import loss_terms
from sartm_model.training.ma_clip.embeddings import open_ma_clip, use_embeddings
from sartm_model.training.ma_clip.train import ADAPTERS_FILE, train_ma_clip
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.processes import (
    announce,
    end_loaders_at_exit,
    interrupts_passed_on,
    is_first_process,
    keep_freed_memory,
)
from sartm_model.training.text_teacher import text_embeddings
from sartm_model.utils.files import write_file
from sartm_model.utils.overrides import differences
from sartm_model.utils.text import first_line

CONFIG_FILE = 'config.yaml'
METRICS_FILE = 'metrics.csv'
RESUMABLE_CHANGES = ('data.workers', 'data.cache', 'device', *STARTS)
"""Settings that a resumed run may change, and any `root`.

They do not affect the samples, and the weights that the run started from are not read again.
"""


def train(
    config_path: Path, out: Path, overrides: Sequence[str] = (), *, resume: bool = False
) -> Path:
    """Train a model.

    Args:
        config_path: YAML of a `TrainConfig`.
        out: folder of the run. With stage `ma_clip` it receives `ma_clip.safetensors`. Else it
            receives `config.yaml`, the models `last.safetensors` and
            `best.safetensors` (highest val mIoU), the state `last.ckpt`, the figures `metrics.csv`
            (`metrics_1.csv` and so on from before a resumption) and TensorBoard's `events`.
        overrides: `key=value`, laid over the file.
        resume: continue the run in `out` from its `last.ckpt`. The losses and weights are those of
            a run that was never stopped. A run that has ended is left as it is.

    Returns:
        The path of `last.safetensors`, or of `ma_clip.safetensors`.

    Raises:
        SartmError: a setting, a data set or a file cannot be used, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C; the state is saved.
        SystemExit: SIGTERM; the state is saved.
    """
    end_loaders_at_exit()
    # A run that is resumed reads no file that it started from: it may be gone.
    model_of = (lambda _: _earlier_config(out).model) if resume else model_config_of
    config = load_train_config(config_path, overrides, model_of)
    label_space = label_space_of_run(config)
    if len(config.loss.class_weights) not in (0, len(label_space)):
        raise SartmError(
            f'loss.class_weights has {len(config.loss.class_weights)} values; expected none, or '
            f'{len(label_space)}, one a class of {label_space.name}'
        )
    if config.stage == 'ma_clip':
        return _train_ma_clip(config, config_path, out, resume)
    ma_clip = open_ma_clip(config)
    if ma_clip is not None:
        config = replace(config, model=replace(config.model, ma_clip=ma_clip.config))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    state = None
    if resume:
        _check_settings(out, config)
        state = out / STATE_FILE
        if (step := _last_step(state, config)) is not None:
            announce(f'the run in {out} has ended at step {step}; nothing is left to train')
            return out / LAST_MODEL
        model = build(config.model, len(label_space))  # the state has all of its weights
        terms = loss_terms(config.loss, model)
        _set_metrics_aside(out)
    else:
        model = initial_model(config, label_space)
        terms = loss_terms(config.loss, model)
        # Only now: settings that the model refuses leave no folder behind.
        _prepare_folder(out, config, config_path)
    # Each process that reads and augments has a core of its own. It must inherit this: to change
    # the number of OpenCV's threads after a fork crashes.
    cv2.setNumThreads(1)
    embeddings = None
    if 'language' in (term.name for term in terms):
        embeddings = text_embeddings(config.text, label_space, out)
    data = TrainingData(config, label_space)
    module = SegmentationTraining(model, config, label_space, embeddings, data.class_weights)
    use_embeddings(ma_clip, model, data.train_samples, out)
    averaged = AveragedWeights(config.ema_decay)
    resume_checkpoint = ResumeCheckpoint(config, out, averaged)
    # The average comes first: what follows in the list saves it.
    callbacks = [
        averaged,
        BestCheckpoint(out, averaged),
        LogPredictions(),
        Progress(refresh_rate=10),
    ]
    if config.patience:
        callbacks.append(EarlyStopping('val_miou', mode='max', patience=config.patience))
    callbacks.append(resume_checkpoint)
    trainer = _trainer(config, out, callbacks)
    with interrupts_passed_on(), _errors_of_workers():
        # With weights_only the state is read as tensors and plain values, never as code.
        trainer.fit(module, datamodule=data, ckpt_path=state, weights_only=True)
        is_measured = resume_checkpoint.is_measured and trainer.global_step % config.val_every == 0
        if not resume_checkpoint.stopped_by and not is_measured:
            trainer.validate(module, datamodule=data, verbose=False)
    resume_checkpoint.report(trainer)
    return out / LAST_MODEL


def _train_ma_clip(config: TrainConfig, config_path: Path, out: Path, resume: bool) -> Path:
    """Run stage `ma_clip`. It is short, so it has no state to resume from."""
    if resume or (out / ADAPTERS_FILE).exists():
        raise SartmError(
            f'a run of stage ma_clip cannot be resumed or repeated in {out}; choose another folder'
        )
    pl.seed_everything(config.seed, workers=True, verbose=False)
    _prepare_folder(out, config, config_path)
    cv2.setNumThreads(1)  # as in `train`
    with interrupts_passed_on(), _errors_of_workers():
        return train_ma_clip(config, _trainer(config, out, [Progress(refresh_rate=10)]), out)


@contextmanager
def _errors_of_workers() -> Iterator[None]:
    """Shorten a SartmError of a data loader's process to its own text.

    Such a process sends its traceback as the message, whose last line is the error.
    """
    try:
        yield
    except SartmError as error:
        message = str(error).strip().splitlines()[-1]
        raise SartmError(message.removeprefix('sartm_model.errors.SartmError: ')) from error


def _prepare_folder(out: Path, config: TrainConfig, config_path: Path) -> None:
    """Write `config.yaml` of a new run.

    Raises SartmError if the folder has what a run would replace: a state, a model, or the file of
    the user that the settings were read from.
    """
    if (out / STATE_FILE).exists():
        raise SartmError(
            f'{out} holds a run already; continue it with --resume, or choose another folder'
        )
    if models := [name for name in (BEST_MODEL, LAST_MODEL) if (out / name).exists()]:
        raise SartmError(
            f'{out} holds the {models[0]} of a run without its {STATE_FILE}, so the run cannot be '
            'continued; choose another folder'
        )
    config_file = out / CONFIG_FILE
    if config_file.exists() and config_file.samefile(config_path):
        raise SartmError(
            f'{config_file} is given by --config, and the run would write all its settings to this '
            'file; choose another folder'
        )
    if is_first_process():
        plain = json.loads(json.dumps(with_absolute_paths(config)))
        write_file(config_file, yaml.safe_dump(plain, sort_keys=False))


def _earlier_config(out: Path) -> TrainConfig:
    """Return the settings of the run in a folder. Raises SartmError if it cannot be resumed."""
    if not (out / STATE_FILE).is_file() or not (out / CONFIG_FILE).is_file():
        raise SartmError(f'{out} has no {STATE_FILE} and {CONFIG_FILE} of a run to resume')
    return load_train_config(out / CONFIG_FILE)


def _check_settings(out: Path, config: TrainConfig) -> None:
    """Raise SartmError, naming them, if a run that is resumed had other settings."""
    earlier = _earlier_config(out)
    changed = differences(with_absolute_paths(earlier), with_absolute_paths(config))
    refused = [
        text
        for key, text in changed.items()
        if key not in RESUMABLE_CHANGES and not key.endswith('.root')
    ]
    if refused:
        raise SartmError(
            f'the run in {out} has other settings: {"; ".join(refused)}; resume it with its own '
            f'settings, or start a new run from its {LAST_MODEL} by start_from'
        )


def _last_step(state: Path, config: TrainConfig) -> int | None:
    """Return the step at which a run has ended, or None if a step or a measurement is left.

    It ends with its last step, or after `patience` measurements without improvement. The final
    measurement of a run whose number of steps is no multiple of `val_every` is not in the state, so
    it is made again.

    Raises:
        SartmError: the state cannot be read.
    """
    try:
        saved = torch.load(state, map_location='cpu', weights_only=True, mmap=True)
        step, callbacks = int(saved['global_step']), saved['callbacks']
    except Exception as error:  # torch raises many kinds: damaged archive, refused pickle, ...
        raise SartmError(
            f'{state} cannot be read ({first_line(error)}); start a new run from {LAST_MODEL} by '
            'start_from'
        ) from error
    waited = max((values.get('wait_count', 0) for values in callbacks.values()), default=0)
    gave_up = 0 < config.patience <= waited
    is_measured = step % config.val_every == 0 and all(
        values.get('is_measured', True) for values in callbacks.values()
    )
    return step if gave_up or (step >= config.steps and is_measured) else None


def _set_metrics_aside(out: Path) -> None:
    """Rename the figures from before a resumption, as Lightning starts a new `metrics.csv`."""
    if is_first_process() and (out / METRICS_FILE).exists():
        number = 1 + sum(1 for _ in out.glob('metrics_*.csv'))
        os.replace(out / METRICS_FILE, out / f'metrics_{number}.csv')


def _trainer(config: TrainConfig, out: Path, callbacks: list[Callback]) -> pl.Trainer:
    # Lightning advertises its products and comments on numbers of workers; neither concerns a user.
    for name in ('pytorch_lightning.utilities.rank_zero', 'lightning_fabric.utilities.seed'):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', message='.*does not have many workers.*')
    warnings.filterwarnings('ignore', message='This DataLoader will create .* worker processes')
    warnings.filterwarnings('ignore', message='.*isinstance.treespec, LeafSpec.*')
    warnings.filterwarnings('ignore', message='.*exists and is not empty.*')
    distributed = config.devices * config.nodes > 1
    # What belongs to the modalities that a batch does not have gets no gradient.
    always_all = config.data.modality == 'both' and not any(s.modalities for s in config.data.train)
    strategy = 'ddp' if always_all else 'ddp_find_unused_parameters_true'
    on_gpu = config.device != 'cpu' and torch.cuda.is_available()
    if not on_gpu:
        keep_freed_memory()
    try:
        return pl.Trainer(
            accelerator={'auto': 'auto', 'cpu': 'cpu', 'cuda': 'gpu'}[config.device],
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=strategy if distributed else 'auto',
            sync_batchnorm=distributed and on_gpu,
            use_distributed_sampler=False,
            precision=cast(Any, _precision(config, on_gpu)),
            max_steps=config.steps,
            accumulate_grad_batches=config.optim.accumulate,
            gradient_clip_val=config.optim.clip_norm,
            # In batches, and counted over the whole run.
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
    except (MisconfigurationException, ValueError) as error:  # no such device, or no such precision
        raise SartmError(
            f'Lightning refuses device {config.device}, devices {config.devices}, nodes '
            f'{config.nodes} and precision {config.precision}: {first_line(error)}'
        ) from error


def _precision(config: TrainConfig, on_gpu: bool) -> str:
    """Return what the setting `precision` means on the device of the run."""
    if config.precision != 'auto':
        return config.precision
    if not on_gpu:
        return '32-true'
    # On older GPUs torch only emulates bfloat16.
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return 'bf16-mixed' if has_bf16 else '16-mixed'
