"""The architecture of a network, which every checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sartm_model.errors import SartmError

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
        # Labels have the geometry of the first image, and the node gives them the header of RGB.
        if 'rgb' in self.modalities[1:]:
            raise SartmError(f'model.modalities is {list(self.modalities)}; expected rgb first')


def model_config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """Read what `to_dict` returned. Raises SartmError if a key or a value does not fit."""
    try:
        return ModelConfig(**values)
    except TypeError as error:
        raise SartmError(f'not a model configuration: {error}') from error
