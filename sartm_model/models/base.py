"""The interface of a network: all that inference, training, evaluation and export know of it.

A family of networks is a subclass of `SegmentationModel`, registered by name in `registry`. A
subclass says how images become features (`encode`), and which of its modules are the heads, which
turn features into logits (`HEADS`). The rest has defaults. docs/architecture.md has an example.

Below, B is the number of images in a batch, K that of classes, M that of modalities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import ModelConfig, check_choice
from sartm_model.data.transforms import resize
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.models.logits import class_probabilities, upsample_logits
from sartm_model.models.state_dict import load_strictly
from sartm_model.utils.parallel import Runner


class SegmentationOutput(NamedTuple):
    """What the losses are computed from.

    Attributes:
        logits: name of a head -> `[B, K, H, W]`, in the order of `SegmentationModel.HEADS`.
        semantic_map: feature map `[B, C, h, w]` of the padded input at stride 16; None in a family
            without one.
    """

    logits: dict[str, Tensor]
    semantic_map: Tensor | None


class SegmentationModel(nn.Module, ABC):
    """A network that labels every pixel of aligned images of one or more modalities.

    Images and logits have these forms in all methods:

    - `images`: modality name -> normalised `[B, C, H, W]`, C as its modality has them (see
      `CHANNELS`), of any one H and W. They are any part of `config.modalities` but not none of
      them.
    - `drop_mask`: bool `[B, M]` in the order of `config.modalities`, true where a modality that is
      given is treated as missing; None if all are used.

    Args:
        config: of this network; a checkpoint stores it.
        num_classes: K.

    Attributes:
        config, num_classes: as given.
        is_inference_form: whether this is the form of `inference_form`, which cannot be saved.
        runner: runs functions in parallel, see `enable_parallel`; None to run one by one.
        semantic_channels: C of `SegmentationOutput.semantic_map`; 0 without one.

    Raises:
        SartmError: `config.size` is none of `SIZES`, `config.without` has another name than
            `PARTS`, `config.prediction` names no head, or the images of a modality have another
            number of channels than `CHANNELS`.
    """

    SIZES: ClassVar[tuple[str, ...]] = ()
    """The values of `config.size`; none in a family that has one size."""

    PARTS: ClassVar[tuple[str, ...]] = ()
    """The parts that `config.without` may leave out."""

    HEADS: ClassVar[Mapping[str, str]]
    """Name of each head -> its module, as in `get_submodule`, which turns the features of `encode`
    into logits `[B, K, h, w]`. The first head is the main one: its loss has the weight 1."""

    INPUT_STRIDE: ClassVar[int] = 4
    """`encode` gets images whose height and width are multiples of this."""

    CHANNELS: ClassVar[tuple[int, ...]] = ()
    """The numbers of channels that an image may have; any number in a family without this."""

    LOGIT_STRIDE: ClassVar[int] = 4
    """Height and width of those images over those of the heads' logits."""

    STAGES: ClassVar[Mapping[str, str]] = {}
    """For `sartm benchmark`, name of each stage of `encode` -> the module that ends it."""

    ENCODER: ClassVar[str] = 'encoder.'
    """How the names of the encoder's weights begin; `optim.encoder_lr_factor` applies to them."""

    ROW_PER_CLASS: ClassVar[tuple[str, ...]] = ()
    """Weights whose row k belongs to class k, see `class_transfer`."""

    MODULE_PER_CLASS: ClassVar[tuple[str, ...]] = ()
    """Lists of modules of which number k belongs to class k."""

    LOGIT_LAYERS: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of the layers whose weights and biases the logits are proportional to,
    see `evaluation.temperature`; without them, a family's checkpoints cannot be calibrated.
    """

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        if self.SIZES:
            check_choice('model.size', config.size, self.SIZES)
        for part in config.without:
            if part not in self.PARTS:
                raise SartmError(
                    f'model.without has {part!r}; {config.name} can do without '
                    f'{" and ".join(self.PARTS) or "none of its parts"}'
                )
        check_choice('model.prediction', config.prediction, ('mean', *self.HEADS))
        for modality in map(MODALITIES.get, config.modalities if self.CHANNELS else ()):
            if modality is not None and modality.channels not in self.CHANNELS:
                raise SartmError(
                    f'model.modalities has {modality.name}, with {modality.channels} channels; '
                    f'{config.name} takes images of {" or ".join(map(str, self.CHANNELS))}'
                )
        self.config = config
        self.num_classes = num_classes
        self.is_inference_form = False
        self.runner: Runner | None = None
        self.semantic_channels = 0
        self.selected_classes: Tensor | None = None

    # What a family implements.

    @abstractmethod
    def encode(self, images: Mapping[str, Tensor], drop_mask: Tensor | None) -> Any:
        """Compute the features that the heads take.

        Args:
            images: padded at bottom and right to multiples of `INPUT_STRIDE`.
            drop_mask: see the class.
        """

    def semantic_map(self, features: Any) -> Tensor | None:
        """Return the map of `SegmentationOutput.semantic_map` that is part of the features."""
        return None

    def load_pretrained(self, setting: str, source: str) -> None:
        """Start from published weights.

        Args:
            setting: the key of the training configuration, such as `sam2_weights`.
            source: its value.

        Raises:
            SartmError: the network does not start from such weights, or they cannot be loaded.
        """
        raise SartmError(
            f'{setting} is set, but {self.config.name} does not start from such weights'
        )

    @classmethod
    def inference_form(
        cls, config: ModelConfig, num_classes: int, state: Mapping[str, Tensor], source: str
    ) -> SegmentationModel:
        """Build the form that inference runs from the weights of the form that is trained.

        A family may merge adapters here; by default both forms are the same.

        Args:
            config, num_classes: as for the class.
            state: the state dict of the form that is trained.
            source: what it was read from, for the error message.

        Raises:
            SartmError: weights are missing, unexpected or of another shape; they are named.
        """
        model = cls(config, num_classes)
        load_strictly(model, state, source)
        return model

    def optimize_for_inference(self) -> None:
        """Replace layers of the inference form by faster ones that compute the same, if there are.

        Called once, in float32. The names of the weights may change.
        """

    def optimize_for_cpu(self) -> None:
        """Replace layers by others that compute the same and are faster on a CPU, if there are.

        Called once, after `optimize_for_inference`, for a network that will not run on a GPU.
        """

    def to_precision(self, dtype: torch.dtype) -> SegmentationModel:
        """Convert the weights in place, but for those that need float32; return the network."""
        return self.to(dtype)

    # What inference, training, evaluation and export call.

    @property
    def predicted_heads(self) -> tuple[str, ...]:
        """The heads whose probabilities are averaged, as `config.prediction` says."""
        return tuple(self.HEADS) if self.config.prediction == 'mean' else (self.config.prediction,)

    def head(self, name: str) -> nn.Module:
        """Return the module of a head."""
        return self.get_submodule(self.HEADS[name])

    def forward(
        self,
        images: Mapping[str, Tensor],
        drop_mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
        **encode_options: Any,
    ) -> SegmentationOutput:
        """Compute the logits of every head.

        Args:
            images, drop_mask: see the class.
            size: `(H, W)` of the logits; the size of the images if omitted.
            encode_options: passed on to `encode`. Only segrgbx takes one, `embeddings`, which
                training computes beforehand.

        Raises:
            SartmError: no image is given, their sizes differ, or the network lacks a modality.
        """
        input_size = self.common_size(images)
        extent = self._extent(input_size)
        features = self.encode(self.pad(images), drop_mask, **encode_options)
        logits = {
            name: upsample_logits(self.head(name)(features), extent, size or input_size)
            for name in self.HEADS
        }
        return SegmentationOutput(logits, self.semantic_map(features))

    def forward_logits(
        self, images: Mapping[str, Tensor], drop_mask: Tensor | None = None
    ) -> tuple[list[Tensor], tuple[float, float]]:
        """Compute the logits of one frame, from which inference derives the labels.

        Args:
            images: of a batch of one, already resized by `resize_input`.
            drop_mask: see the class.

        Returns:
            The logits `[K, h, w]` of each of the `predicted_heads`, and the height and width of
            their part that covers the images, in logits; the rest is padding.

        Raises:
            SartmError: as `forward`.
        """
        extent = self._extent(self.common_size(images))
        features = self.encode(self.pad(images), drop_mask)
        heads = [self.head(name) for name in self.predicted_heads]
        if self.runner is not None and len(heads) == 2:
            first, second = heads
            logits = list(self.runner(lambda: first(features)[0], lambda: second(features)[0]))
        else:
            logits = [head(features)[0] for head in heads]
        return [self._select(of_head, dim=0) for of_head in logits], extent

    def segment(self, images: Mapping[str, Tensor]) -> Tensor:
        """Compute class probabilities, float32 `[B, K, H, W]`, at the size of the images.

        Unlike `forward`, this resizes the images by `config.input_scale` first. Raises as
        `forward`.
        """
        return class_probabilities(self.segment_logits(images))

    def segment_logits(self, images: Mapping[str, Tensor]) -> Tensor:
        """Compute the logits `[heads, B, K, H, W]` that `segment` averages; raises as `forward`."""
        resized = {name: self.resize_input(image) for name, image in images.items()}
        logits = self(resized, size=self.common_size(images)).logits
        predicted = [self._select(logits[name], dim=1) for name in self.predicted_heads]
        return torch.stack(predicted)

    def select_classes(self, ids: Sequence[int] | None) -> None:
        """From now on `forward_logits` and `segment` know these classes alone, in this order.

        The logits of the others are left out before the softmax. `forward` gives all. Call it when
        the network is on its device.

        Args:
            ids: each below K; None for all classes.
        """
        device = next(self.parameters()).device
        self.selected_classes = None if ids is None else torch.tensor(ids, device=device)

    def resize_input(self, image: Tensor) -> Tensor:
        """Resize an image `[B, C, H, W]` by `config.input_scale`."""
        return resize(image, self.scaled_size((image.shape[-2], image.shape[-1])))

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the `(height, width)` to which `resize_input` resizes an image of `size`."""
        height, width = (max(1, round(side * self.config.input_scale)) for side in size)
        return height, width

    def enable_parallel(self, runner: Runner) -> None:
        """From now on run independent parts of the network in parallel.

        The operations of a small network are too short to be shared by all threads, and too small
        to fill a GPU. Only for inference, and by one calling thread at a time.

        Args:
            runner: `CudaStreams` for a GPU, `ParallelRunner` for a CPU.
        """
        self.requires_grad_(False)
        self.runner = runner

    def common_size(self, images: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the `(height, width)` of all images; raises as `forward`."""
        sizes = {(x.shape[-2], x.shape[-1]) for x in images.values()}
        if not sizes:
            raise SartmError('no image: the network needs at least one modality')
        if len(sizes) > 1:
            raise SartmError(
                f'the modalities differ in size: {sorted(sizes)}; expected equal sizes'
            )
        if unknown := sorted(images.keys() - set(self.config.modalities)):
            raise SartmError(
                f'the network has no modality {", ".join(unknown)}; expected '
                f'{" or ".join(self.config.modalities)}'
            )
        return sizes.pop()

    def pad(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pad bottom and right to multiples of `INPUT_STRIDE` by repeating the last row and column.

        `encode` is given such images. Along the border of a uniform colour, which no camera shows,
        a network sees objects.
        """
        height, width = next(iter(images.values())).shape[-2:]
        padding = (0, -width % self.INPUT_STRIDE, 0, -height % self.INPUT_STRIDE)
        if not any(padding):
            return dict(images)
        return {name: F.pad(x, padding, mode='replicate') for name, x in images.items()}

    def _select(self, logits: Tensor, dim: int) -> Tensor:
        """Return the logits of the selected classes, which are along `dim`."""
        if self.selected_classes is None:
            return logits
        return logits.index_select(dim, self.selected_classes)

    def _extent(self, input_size: tuple[int, int]) -> tuple[float, float]:
        """Return the height and width of an input without its padding, in logits."""
        height, width = input_size
        return height / self.LOGIT_STRIDE, width / self.LOGIT_STRIDE
