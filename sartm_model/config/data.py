"""The data sets of a training and their augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sartm_model.config.checks import check_not_negative, check_positive
from sartm_model.errors import SartmError


@dataclass(frozen=True)
class SourceConfig:
    """A data set to draw frames from.

    Attributes:
        dataset: one of `data.registry.NAMES`, such as mfnet, folder or synthetic.
        root: the folder of the data set; for folder the YAML file that declares it; empty for
            synthetic.
        split: name of the split.
        weight: how often its frames are drawn, relative to the other sources; with 0 a source of
            training frames is left out.
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
            check_not_negative(
                f'the setting {key} of the source {self.dataset}', getattr(self, key)
            )


@dataclass(frozen=True)
class DataConfig:
    """Data sets and augmentation.

    Attributes:
        train: the sources of training frames, mixed by weight.
        val: the source of the frames that are measured every `val_every` steps.
        more_val: further sources that are measured, each with its own figures; the best model is
            then that of the highest mean of all mIoU.
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
        colour_jitter: probability that the colours of RGB are changed; unless it is 0, RGB is also
            blurred with the probability 0.2.
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
            check_positive(f'data.{key}', getattr(self, key))
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
            check_not_negative(f'data.{key}', getattr(self, key))
        if not 0 <= self.thermal_scale < 1:
            raise SartmError(f'data.thermal_scale is {self.thermal_scale}; expected 0 to below 1')

    @property
    def drawn(self) -> list[SourceConfig]:
        """The sources of training frames whose weight is not 0."""
        return [source for source in self.train if source.weight]

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
