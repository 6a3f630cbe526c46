"""Every setting of model and training: one tree of frozen dataclasses.

A YAML file and `key=value` overrides are laid over the defaults; a key that does not exist, or a
value of the wrong type, is an error that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

SIZES = ('nano', 'tiny', 'small', 'base_plus', 'large')
PREDICTIONS = ('mean', 'mask', 'auxiliary')


@dataclass(frozen=True)
class ModelConfig:
    """What the network is; stored in every checkpoint.

    Attributes:
        size: of the encoder; `nano` is ours, the others are SAM2's.
        modalities: names of the two inputs, RGB first.
        lora_rank: r of eq. 6-7.
        prediction: the mean of the heads' probabilities, or one head's.
        input_scale: at which part of their height and width the network is shown the images; half
            takes a quarter of the time. Training crops keep their own scale.
    """

    size: str = 'nano'
    modalities: tuple[str, str] = ('rgb', 'thermal')
    lora_rank: int = 16
    prediction: str = 'mean'
    input_scale: float = 1.0

    def __post_init__(self) -> None:
        # YAML and JSON know lists only; as a tuple, equal configurations compare equal.
        object.__setattr__(self, 'modalities', tuple(self.modalities))
        _one_of('model.size', self.size, SIZES)
        _one_of('model.prediction', self.prediction, PREDICTIONS)
        if self.lora_rank < 1:
            raise SartmError(f'model.lora_rank is {self.lora_rank}; expected 1 or more')
        if not 0 < self.input_scale <= 1:
            raise SartmError(
                f'model.input_scale is {self.input_scale}; expected above 0 and at most 1'
            )
        # A dot would split the name of an adapter's weights.
        if len(set(self.modalities)) != 2 or any(
            not name.isidentifier() for name in self.modalities
        ):
            raise SartmError(
                f'model.modalities is {list(self.modalities)}; expected two different names'
            )


@dataclass(frozen=True)
class SourceConfig:
    """One data set to draw training frames from.

    Attributes:
        dataset: mfnet, pst900, fmb or synthetic.
        root: its folder; empty for synthetic.
        split: which of its splits.
        weight: how often it is drawn, relative to the other sources.
        frames: only so many, from the start of the split; 0 for all.
    """

    dataset: str = 'synthetic'
    root: str = ''
    split: str = 'train'
    weight: float = 1.0
    frames: int = 0


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and how it is augmented.

    Attributes:
        train: the sources, mixed by weight.
        val: the source that is measured after every `trainer.val_every` steps.
        crop_height, crop_width: size of a training crop, pixels.
        scale_min, scale_max: range of the random resize before the crop.
        batch_size: pairs a step.
        workers: processes that read and augment.
        modality: both, or rgb or thermal to train on that one alone.
        drop_modality: probability that a pair loses one modality, either with equal chance.
        object_crop: probability that a crop is laid on an object instead of anywhere.
        paste_objects: probability that objects of a second frame are pasted into a sample.
        colour_jitter: probability that the colours of RGB are changed.
        thermal_shift: largest shift of thermal against RGB, pixels of the crop, per axis.
        thermal_scale: largest zoom of thermal against RGB, as a part: 0.02 for 0.98 to 1.02.
        thermal_noise: largest standard deviation of thermal noise, as a part of its range.
        thermal_freeze: probability that thermal shows what was seen a moment ago.
        over_exposure: probability that RGB is over-exposed or glared into.
    """

    train: list[SourceConfig] = field(default_factory=lambda: [SourceConfig()])
    val: SourceConfig = field(default_factory=lambda: SourceConfig(split='val', frames=40))
    crop_height: int = 256
    crop_width: int = 320
    scale_min: float = 0.5
    scale_max: float = 2.0
    batch_size: int = 8
    workers: int = 2
    modality: str = 'both'
    drop_modality: float = 0.2
    object_crop: float = 0.0
    paste_objects: float = 0.0
    colour_jitter: float = 1.0
    thermal_shift: float = 0.0
    thermal_scale: float = 0.0
    thermal_noise: float = 0.0
    thermal_freeze: float = 0.0
    over_exposure: float = 0.0

    def __post_init__(self) -> None:
        _one_of('data.modality', self.modality, ('both', 'rgb', 'thermal'))
        if not self.train:
            raise SartmError('data.train is empty; name at least one source')
        _positive('data.batch_size', self.batch_size)
        _positive('data.crop_height', self.crop_height)
        _positive('data.crop_width', self.crop_width)
        if not 0 < self.scale_min <= self.scale_max:
            raise SartmError(
                f'data.scale_min and data.scale_max are {self.scale_min} and {self.scale_max}; '
                f'expected 0 < scale_min <= scale_max'
            )
        for key in (
            'drop_modality',
            'object_crop',
            'paste_objects',
            'colour_jitter',
            'thermal_freeze',
            'over_exposure',
        ):
            value = getattr(self, key)
            if not 0 <= value <= 1:
                raise SartmError(f'data.{key} is {value}; expected a probability, 0 to 1')
        for key in ('thermal_shift', 'thermal_noise'):
            if getattr(self, key) < 0:
                raise SartmError(f'data.{key} is {getattr(self, key)}; expected 0 or more')
        if not 0 <= self.thermal_scale < 1:
            raise SartmError(f'data.thermal_scale is {self.thermal_scale}; expected 0 to below 1')


class LossWeights(NamedTuple):
    """The factors of eq. 15: lambda 1 of head 2, 2 of the prototype term, 3 of the distillation."""

    auxiliary: float
    prototype: float
    language: float


PRESETS = {
    'paper': LossWeights(0.008, 1e4, 100.0),
    'balanced': LossWeights(0.4, 0.1, 0.1),
}
"""Named weights of eq. 15.

`paper` are the published ones, tuned against faults of its code. With these losses their prototype
term pulls on the fused map 25 000 to 82 000 times as hard as both heads together.

`balanced` is reasoned from the sizes of the terms. At the fused map the gradient of the prototype
term is 0.8 to 2.3 times that of head 1 + 0.4 head 2, of the distillation 0.9 to 1.2 times (medians
over 20 batches; nano, untrained and the shipped `demo`; generated and MFNet's training frames), so
a tenth of each leaves the lead to the labels. It is the default because in an ablation it did
better than `paper` and than any part of itself: docs/results.md.
"""


@dataclass(frozen=True)
class LossConfig:
    """Weights of eq. 15 and the OHEM threshold of eq. 11.

    A weight that is set replaces the preset's; zero switches its term off.

    Attributes:
        preset: balanced or paper, the weights where nothing else is said.
        auxiliary: lambda 1, the weight of head 2's loss.
        prototype: lambda 2, the weight of the prototype term.
        language: lambda 3, the weight of the language-aided distillation.
        ohem_probability: a pixel is hard while its class has less than this probability.
        ohem_min_fraction: at least this part of the labelled pixels is kept.
        class_weights: one a class, for rare classes; empty for equal weights.
    """

    preset: str = 'balanced'
    auxiliary: float | None = None
    prototype: float | None = None
    language: float | None = None
    ohem_probability: float = 0.7
    ohem_min_fraction: float = 1 / 16
    class_weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of('loss.preset', self.preset, tuple(PRESETS))
        for name, value in self.weights._asdict().items():
            if not 0 <= value < math.inf:
                raise SartmError(f'loss.{name} is {value}; expected 0 (off) or more')

    @property
    def weights(self) -> LossWeights:
        """What is set, and the preset's where nothing is."""
        preset = PRESETS[self.preset]
        return LossWeights(
            *(
                default if value is None else value
                for value, default in zip(
                    (self.auxiliary, self.prototype, self.language), preset, strict=True
                )
            )
        )


@dataclass(frozen=True)
class TextConfig:
    """Where the embeddings of the class names come from, for the language-aided distillation.

    Attributes:
        embeddings: a precomputed file, .npz or .safetensors; empty to compute them with open_clip.
        model: an open_clip model.
        pretrained: its weights, a tag that open_clip knows (and downloads) or a file. OpenAI's
            weights from a file need model ViT-B-32-quickgelu; their tag says so by itself.
        templates: of the prompts, with {name} for a class; their embeddings are averaged.
        names: class -> words for {name}, over those built in; empty words leave the class out.
    """

    embeddings: str = ''
    model: str = 'ViT-B-32'
    pretrained: str = 'openai'
    templates: list[str] = field(default_factory=lambda: ['a {name}'])
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.templates or any('{name}' not in template for template in self.templates):
            raise SartmError(
                f'text.templates is {list(self.templates)}; expected at least one, {{name}} in each'
            )


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and polynomial decay.

    Attributes:
        lr: peak learning rate.
        weight_decay: for parameters of two and more dimensions.
        warmup_fraction: part of the steps over which the rate climbs from a tenth to the peak.
        power: of the polynomial decay.
        clip_norm: largest norm of the gradient.
        accumulate: batches whose gradients are added up for one step.
    """

    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup_fraction: float = 0.02
    power: float = 0.9
    clip_norm: float = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        _positive('optim.accumulate', self.accumulate)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        sam2_weights: SAM2's official .pt to start from; empty for random weights.
        start_from: a SARTM checkpoint to start from instead; empty for none.
        label_space: mfnet, pst900 or fmb; must be that of every source.
        steps: optimiser steps.
        val_every: steps between two measurements on `data.val`, and two saves.
        patience: measurements without a better one after which the run ends; 0 never ends it early.
        keep_best: number of models kept, the best by val mIoU.
        ema_decay: of the averaged weights, which are what is measured and saved; 0 for none.
        precision: of Lightning's trainer: 32-true, bf16-mixed, 16-mixed.
        device: auto, cpu or cuda.
        devices: processes on this machine, one a device; `data.batch_size` is of each.
        nodes: machines; the run is then started by torchrun on each.
        seed: of weights, sampling and augmentation.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    text: TextConfig = field(default_factory=TextConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sam2_weights: str = ''
    start_from: str = ''
    label_space: str = 'mfnet'
    steps: int = 10000
    val_every: int = 500
    patience: int = 0
    keep_best: int = 1
    ema_decay: float = 0.999
    precision: str = '32-true'
    device: str = 'auto'
    devices: int = 1
    nodes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        from sartm_model.labels import LABEL_SPACES

        _one_of('label_space', self.label_space, tuple(LABEL_SPACES))
        _positive('steps', self.steps)
        for key in ('val_every', 'keep_best', 'devices', 'nodes'):
            _positive(key, getattr(self, key))
        if self.loss.weights.auxiliary == 0 and self.model.prediction != 'mask':
            raise SartmError(
                f'loss.auxiliary is 0, so head 2 is not trained, but model.prediction is '
                f'{self.model.prediction!r}; expected mask'
            )
        if self.sam2_weights and self.start_from:
            raise SartmError(
                'sam2_weights and start_from are both set; a run starts from one of them'
            )


def load_train_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Args:
        path: a YAML file with any part of the tree.
        overrides: `key=value` with dotted keys, laid over the file, e.g. `optim.lr=1e-3`.

    Raises:
        SartmError: the file cannot be read, or a key or value does not fit the tree.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for item in overrides:
        if '=' not in item:
            raise SartmError(f'override {item!r} is not of the form key=value')
    try:
        tree = OmegaConf.structured(TrainConfig)
        # Frozen dataclasses become read-only nodes, which could not be merged into.
        parts = (tree.model, tree.data, tree.data.val, tree.loss, tree.text, tree.optim)
        for node in (tree, *parts):
            OmegaConf.set_readonly(node, False)
        dotted = OmegaConf.from_dotlist(list(overrides))
        merged = OmegaConf.merge(tree, OmegaConf.load(path), dotted)
        return cast(TrainConfig, OmegaConf.to_object(merged))
    except FileNotFoundError:
        raise SartmError(f'no configuration file {path}; config/train/ has some') from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise SartmError(f'configuration {path}: {first_line(error)}') from error


def differences(before: TrainConfig, now: TrainConfig) -> dict[str, str]:
    """The settings in which two configurations differ.

    Returns:
        For each dotted key a text with both values, e.g. `optim.lr (0.1 before, 0.2 now)`.
    """
    old, new = _flat(to_dict(before)), _flat(to_dict(now))
    return {
        key: f'{key} ({old.get(key)} before, {new.get(key)} now)'
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def _flat(tree: Mapping[str, Any], at: str = '') -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f'{at}{key}.') if isinstance(value, dict) else {f'{at}{key}': value}
    return flat


def model_config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Read what `to_dict` wrote. Raises SartmError on a key or a value that does not fit."""
    try:
        return ModelConfig(**values)
    except TypeError as error:
        raise SartmError(f'not a model configuration: {error}') from error


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """The configuration as plain values."""
    return asdict(config)


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SartmError(f'{key} is {value!r}; expected one of {", ".join(choices)}')


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise SartmError(f'{key} is {value}; expected 1 or more')
