"""The image encoder of size `lite`: EfficientNet-Lite0 and 1x1 laterals, shared by the modalities.

M. Tan and Q. Le, 'EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks', ICML
2019, in the variant of TensorFlow for edge devices: ReLU6 and no squeeze-and-excitation. Its
weights from ImageNet are loaded by `imagenet_weights`.

The modalities share the convolutions. Each has its own batch norms, because its features have
other means, and its own LoRA adapter on every 1x1 convolution. A unit of convolution, norm and
activation has two forms:

- `SharedConv` for training: one convolution, which `peft` adapts, and a norm per modality;
- `ConvPerModality` for inference: for each modality a convolution into which its adapter and its
  norm are merged; it needs no `peft`.

All calls take the name of the modality. `peft.set_adapter` is not used; see `lora`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.config import ModelConfig
from sartm_model.models.layers.peft_adapters import inject_adapters
from sartm_model.models.sartm.encoder import Pyramid

NORM_EPS = 1e-3
"""Epsilon of the batch norms of TensorFlow's weights."""

STEM_WIDTH = 32


class Stage(NamedTuple):
    """Inverted residual blocks of one width; the first of them may halve height and width."""

    kernel: int
    stride: int
    expansion: int
    width: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, width=16, blocks=1),
    Stage(kernel=3, stride=2, expansion=6, width=24, blocks=2),
    Stage(kernel=5, stride=2, expansion=6, width=40, blocks=2),
    Stage(kernel=3, stride=2, expansion=6, width=80, blocks=3),
    Stage(kernel=5, stride=1, expansion=6, width=112, blocks=3),
    Stage(kernel=5, stride=2, expansion=6, width=192, blocks=4),
    Stage(kernel=3, stride=1, expansion=6, width=320, blocks=1),
)
LEVELS = {1: 4, 2: 8, 4: 16, 6: 32}
"""Number of each stage whose result goes to the FPN, and its stride."""

CHANNELS = 128
"""Width C of the semantic feature map."""


class SharedConv(nn.Module):
    """A convolution shared by the modalities, with an adapter and a batch norm per modality.

    `inject_adapters` makes `conv` a layer of `peft`. Arguments as for `ConvPerModality`.
    """

    def __init__(self, modalities: Sequence[str], conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.conv: Any = conv
        self.norms = nn.ModuleDict(
            {name: nn.BatchNorm2d(conv.out_channels, eps=NORM_EPS) for name in modalities}
        )
        self.relu = relu

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Compute norm((W + B A) x) and ReLU6 of a batch of one modality.

        The matrices are added, and not their products with x, which would be three convolutions in
        place of one. W is trained too, so its gradient, from which those of A and B follow, is
        computed in any case.
        """
        if hasattr(self.conv, 'lora_A'):
            a, b = (
                part[modality].weight[..., 0, 0] for part in (self.conv.lora_A, self.conv.lora_B)
            )
            x = F.conv2d(x, self.conv.base_layer.weight + (b @ a)[..., None, None])
        else:
            x = _conv_same(self.conv, x)
        x = self.norms[modality](x)
        return F.relu6(x) if self.relu else x


class ConvPerModality(nn.Module):
    """A convolution with a weight and a bias for each modality, for the weights of `merge_state`.

    Channels are last in memory from the stem on, so that a 1x1 convolution is one matrix product.
    `pad_kernel` makes the padded copy of `_conv_same` unnecessary.

    Args:
        modalities: their names.
        conv: gives the shape of the convolution.
        relu: apply ReLU6 to the result.
    """

    def __init__(self, modalities: Sequence[str], conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleDict(
            {
                name: nn.Conv2d(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size,  # type: ignore[arg-type]
                    conv.stride,  # type: ignore[arg-type]
                    conv.padding,  # type: ignore[arg-type]
                    groups=conv.groups,
                )
                for name in modalities
            }
        )
        self.relu = relu

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Convolve a batch of one modality and apply ReLU6."""
        conv: Any = self.convs[modality]
        if conv.kernel_size == (1, 1):
            x = _as_product(conv, x)
        else:
            x = _conv_same(conv, x.contiguous(memory_format=torch.channels_last))
        return F.relu6(x, inplace=True) if self.relu else x

    def add_to(self, total: Tensor, x: Tensor, modality: str) -> Tensor:
        """Add a 1x1 convolution without a bias to a map, in place. Both have channels last."""
        conv: Any = self.convs[modality]
        rows, sums = (maps.permute(0, 2, 3, 1).view(-1, maps.shape[1]) for maps in (x, total))
        sums.addmm_(rows, conv.weight[..., 0, 0].T)
        return total

    def pad_kernel(self) -> None:
        """Add a row and a column of zeros to the kernels of a depthwise convolution of stride 2.

        With equal padding on both sides, which a convolution needs no copy for, they then see what
        `_conv_same` shows the original ones. On a GPU this does not pay: cuDNN's fast depthwise
        convolutions are of 3x3 and 5x5, and worth the padded copy.
        """
        for conv in list[Any](self.convs.values()):
            if conv.stride[0] == 2 and conv.groups > 1:
                conv.padding = (conv.kernel_size[0] // 2,) * 2
                conv.kernel_size = (conv.kernel_size[0] + 1,) * 2
                conv.weight = nn.Parameter(F.pad(conv.weight.detach(), (1, 0, 1, 0)))


def _as_product(conv: Any, x: Tensor) -> Tensor:
    """Compute a 1x1 convolution of a map with channels last as one matrix product."""
    tokens = F.linear(x.permute(0, 2, 3, 1), conv.weight[..., 0, 0], conv.bias)
    return tokens.permute(0, 3, 1, 2)


def _conv_same(conv: Any, x: Tensor) -> Tensor:
    """Convolve with the padding that TensorFlow calls SAME.

    A convolution of stride 2 on an even size takes one row and one column less of padding at the
    top and at the left than at the bottom and at the right.
    """
    if conv.stride[0] == 2 and conv.padding[0] == 0:
        before = (conv.kernel_size[0] - 2) // 2
        x = F.pad(x, (before, before + 1, before, before + 1))
    return conv(x)


Unit = Callable[[nn.Conv2d, bool], nn.Module]
"""Builds a `SharedConv` or a `ConvPerModality` of a convolution and whether ReLU6 follows."""


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution and projection (1x1), with a skip if it fits.

    Without an expansion it is what the authors call a depthwise separable convolution.
    """

    def __init__(self, unit: Unit, d_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        width = d_in * stage.expansion
        if stage.expansion > 1:
            self.expand: nn.Module | None = unit(nn.Conv2d(d_in, width, 1, bias=False), True)
        else:
            self.expand = None
        depthwise = nn.Conv2d(
            width,
            width,
            stage.kernel,
            stride,
            padding=stage.kernel // 2 if stride == 1 else 0,  # see `_conv_same`
            groups=width,
            bias=False,
        )
        self.depthwise = unit(depthwise, True)
        self.project = unit(nn.Conv2d(width, stage.width, 1, bias=False), False)
        self.has_skip = stride == 1 and d_in == stage.width
        self.in_place = False

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Compute `[B, d_out, h, w]` of `[B, d_in, h, w]`, or of twice that height and width."""
        expanded = x if self.expand is None else self.expand(x, modality)
        hidden = self.depthwise(expanded, modality)
        if self.in_place:
            return self.project.add_to(x, hidden, modality)  # type: ignore[operator]
        out = self.project(hidden, modality)
        return x + out if self.has_skip else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 without its classifier.

    Args:
        unit: builds each unit of convolution, norm and activation.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.stem = unit(nn.Conv2d(3, STEM_WIDTH, 3, stride=2, bias=False), True)
        d_in = STEM_WIDTH
        self.stages = nn.ModuleList()
        for stage in STAGES:
            blocks = nn.ModuleList()
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(InvertedResidual(unit, d_in, stage, stride))
                d_in = stage.width
            self.stages.append(blocks)

    def forward(self, x: Tensor, modality: str) -> list[Tensor]:
        """Return the maps of strides 4, 8, 16 and 32 of images `[B, 3, H, W]` of a modality."""
        x = self.stem(x, modality)
        levels = []
        for number, blocks in enumerate(self.stages):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, modality)
            if number in LEVELS:
                levels.append(x)
        return levels


class EfficientNetEncoder(nn.Module):
    """Encodes each modality in a pass of its own. Several threads can use one encoder at once.

    Args:
        config: modalities and LoRA rank.
        merged: build the inference form, in which adapters and norms are part of the weights.
    """

    def __init__(self, config: ModelConfig, *, merged: bool) -> None:
        super().__init__()
        self.modalities = tuple(config.modalities)
        self.channels = CHANNELS
        form = ConvPerModality if merged else SharedConv

        def unit(conv: nn.Conv2d, relu: bool) -> nn.Module:
            return form(self.modalities, conv, relu=relu)

        self.trunk = EfficientNetLite(unit)
        widths = [STAGES[number].width for number in LEVELS]
        outputs = (CHANNELS // 8, CHANNELS // 4, CHANNELS, CHANNELS)  # FFP, IFP, and two for SFM
        self.laterals = nn.ModuleList(
            nn.Conv2d(d_in, d_out, kernel_size=1)
            for d_in, d_out in zip(widths, outputs, strict=True)
        )
        if not merged:
            inject_adapters(
                self.trunk,
                self.modalities,
                config.lora_rank,
                layers=r'stages\.\d+\.\d+\.(expand|project)\.conv',
            )

    @torch.no_grad()
    def optimize_for_inference(self) -> None:
        """Let each block with a skip add to its input in place, as one product.

        Such blocks follow one after the other in a stage, each with x <- x + W y + b. The stage's
        first block, which has no skip, adds the b of all of them. So x has the sum e of those of
        this and of later blocks in it, which the expansion takes out by its own bias:
        V x + c = V (x + e) + (c - V e).
        """
        for first, *others in list[Any](self.trunk.stages):
            for name in self.modalities:
                not_due = torch.zeros_like(first.project.convs[name].bias, dtype=torch.float64)
                for block in reversed(others):
                    expand, project = block.expand.convs[name], block.project.convs[name]
                    not_due += project.bias
                    project.bias = None
                    expand.bias -= expand.weight[..., 0, 0].double() @ not_due
                first.project.convs[name].bias += not_due
            for block in others:
                block.in_place = True

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Encode the given modalities; arguments and result as for `Encoder.forward`."""
        return {name: self._pyramid(image, name) for name, image in images.items()}

    def _pyramid(self, images: Tensor, modality: str) -> Pyramid:
        """Compute eq. 8, in which the top-down path goes by nearest neighbour into stride 16."""
        at_4, at_8, at_16, at_32 = (
            _as_product(lateral, level)
            for lateral, level in zip(self.laterals, self.trunk(images, modality), strict=True)
        )
        return Pyramid(at_16 + F.interpolate(at_32, scale_factor=2.0, mode='nearest'), at_8, at_4)


def merge_state(state: Mapping[str, Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """Convert the weights of a model of size `lite` into those of its inference form.

    For each modality, with its adapter A, B and its norm of scale g, shift b, mean m, variance v:

        W' = s (W + B A),    b' = b - s m,    s = g / sqrt(v + eps)

    The products are computed in float64. Weights outside of the trunk stay as they are.

    Args:
        state: a state dict with `SharedConv` units that have a norm for each of `modalities`.
        modalities: their names.

    Raises:
        KeyError: a weight is missing from `state`.
    """
    trunk = 'encoder.trunk.'
    merged = {key: value for key, value in state.items() if not key.startswith(trunk)}
    units = {key.partition('.norms.')[0] for key in state if '.norms.' in key}
    for unit in units:
        for name in modalities:
            conv = f'{unit}.conv'
            if f'{conv}.weight' in state:
                weight = state[f'{conv}.weight'].double()
            else:
                low_rank = torch.einsum(
                    'orhw,rihw->oihw',
                    state[f'{conv}.lora_B.{name}.weight'].double(),
                    state[f'{conv}.lora_A.{name}.weight'].double(),
                )
                weight = state[f'{conv}.base_layer.weight'].double() + low_rank
            scale, shift, mean, variance = (
                state[f'{unit}.norms.{name}.{part}'].double()
                for part in ('weight', 'bias', 'running_mean', 'running_var')
            )
            scale = scale / (variance + NORM_EPS).sqrt()
            merged[f'{unit}.convs.{name}.weight'] = (scale[:, None, None, None] * weight).float()
            merged[f'{unit}.convs.{name}.bias'] = (shift - scale * mean).float()
    return merged
