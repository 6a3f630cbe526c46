"""A checkpoint as other runtimes take it: camera counts in, labels out.

`ExportedModel` is the whole way of `Predictor.predict`, scaling and resizing and padding included,
in operations that ONNX has; `export` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm_model.data.transforms import (
    PERCENTILES,
    RGB_MEAN,
    RGB_STD,
    ThermalRange,
    min_span,
    normalise_thermal,
    scale_between,
    scale_thermal,
)
from sartm_model.errors import SartmError
from sartm_model.models.sartm import Sartm
from sartm_model.models.sartm.encoder import STRIDE, Pyramid

MODALITIES = ('both', 'rgb', 'thermal')
THERMAL_BITS = {'uint8': 8, 'uint16': 16}
PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16}


@dataclass(frozen=True)
class ExportConfig:
    """What an exported file takes.

    Attributes:
        height, width: of the RGB image, pixels; of the thermal image where it is alone.
        modality: both, or rgb or thermal alone.
        thermal_height, thermal_width: of the thermal image beside RGB; 0 for that of RGB.
        thermal_type: of its pixels, uint8 or uint16.
        thermal_range: mode, low and high of `ThermalRange`.
        precision: of the network, fp32 or fp16; images and labels stay uint8.
    """

    height: int = 480
    width: int = 640
    modality: str = 'both'
    thermal_height: int = 0
    thermal_width: int = 0
    thermal_type: str = 'uint8'
    thermal_range: tuple[str, float, float] = ('percentile', 0.0, 255.0)
    precision: str = 'fp32'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'thermal_range', tuple(self.thermal_range))  # JSON knows lists
        choices = {
            'modality': MODALITIES,
            'thermal_type': tuple(THERMAL_BITS),
            'precision': tuple(PRECISIONS),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise SartmError(
                    f'export: {key} is {getattr(self, key)!r}; expected {", ".join(allowed)}'
                )
        for name, (height, width) in self.sizes.items():
            if height < 1 or width < 1:
                raise SartmError(
                    f'export: the {name} image is {width}x{height}; expected 1 or more'
                )
        self.range  # noqa: B018  complains of an empty range

    @property
    def range(self) -> ThermalRange:
        """How thermal counts are scaled."""
        return ThermalRange(*self.thermal_range)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """`(height, width)` of each input, by its name, in the file's order."""
        rgb = self.height, self.width
        thermal = self.thermal_height or self.height, self.thermal_width or self.width
        if self.modality == 'both':
            return {'rgb': rgb, 'thermal': thermal}
        return {self.modality: rgb}


class ExportedModel(nn.Module):
    """Images as cameras give them -> uint8 labels and confidence, both `[H, W]`.

    Args:
        model: merged, in float32, in evaluation mode; it is brought to the precision.
        config: what it takes.
    """

    def __init__(self, model: Sartm, config: ExportConfig) -> None:
        super().__init__()
        self.config = config
        self.dtype = PRECISIONS[config.precision]
        self.model = model.to(self.dtype)
        self.model.mask_decoder.position.float()  # as in `predictor`: half would blur positions
        self.encoder: nn.Module = self.model.encoder
        self.register_buffer('mean', torch.tensor(RGB_MEAN)[:, None, None] * 255)
        self.register_buffer('std', torch.tensor(RGB_STD)[:, None, None] * 255)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """RGB `[H, W, 3]` uint8 and thermal `[h, w]`, or the one that the configuration names.

        After both may come which of them are there: uint8 `[2]`, 0 for one that is not.
        """
        images, present = given[: len(self.config.sizes)], given[len(self.config.sizes) :]
        images = tuple(
            _check_size(image, list(size))
            for image, size in zip(images, self.config.sizes.values(), strict=True)
        )
        named = dict(zip(self.config.sizes, images, strict=True))
        rgb, thermal = named.get('rgb'), named.get('thermal')
        height, width = self._size(images[0])
        small = self._network_size(height, width)
        inputs = {}
        rgb_name, thermal_name = self.model.config.modalities
        if rgb is not None:
            counts = self._resize(rgb.permute(2, 0, 1)[None].float(), small)  # [1, 3, h, w]
            inputs[rgb_name] = (counts - self.get_buffer('mean')) / self.get_buffer('std')
        if thermal is not None:
            scaled = self._scaled(thermal)[None]
            x = normalise_thermal(scaled)
            if rgb is not None:
                x = self._resize(x, (height, width))  # [1, 1, H, W]
            inputs[thermal_name] = self._resize(x, small).expand(-1, 3, -1, -1)
        below, right = (-side % STRIDE for side in small)
        padded = {n: F.pad(x, (0, right, 0, below)).to(self.dtype) for n, x in inputs.items()}
        logits = self._heads(padded, present[0][None] == 0 if present else None)
        probabilities = _probabilities(logits.float(), small, (height, width))
        confidence, labels = probabilities.max(dim=0)
        planes = labels.to(torch.uint8), (confidence * 255).round().to(torch.uint8)
        # Here one byte a pixel is copied, before it would have been four for every class.
        return planes[0][:height, :width], planes[1][:height, :width]

    def _size(self, image: Tensor) -> tuple[int, int]:
        return next(iter(self.config.sizes.values()))  # as numbers, which a trace may count with

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        scale = self.model.config.input_scale
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _resize(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Bilinear; left out where a known size is already that."""
        if tuple(x.shape[-2:]) == size:
            return x
        return F.interpolate(x, size=size, mode='bilinear')

    def _scaled(self, thermal: Tensor) -> Tensor:
        """As `scale_thermal`, with percentiles by bisection: few runtimes sort as much at once."""
        if self.config.thermal_range[0] == 'fixed':
            return scale_thermal(thermal, self.config.range)
        counts = thermal.to(torch.int32).float()
        bits = THERMAL_BITS[self.config.thermal_type]
        low, high = percentiles(counts[::4, ::4].reshape(1, -1), bits)
        widen = (min_span(bits == 8) - (high - low)).clamp_min(0) / 2
        return scale_between(thermal, torch.stack((low - widen, high + widen)))

    def _heads(self, inputs: dict[str, Tensor], drop_mask: Tensor | None) -> Tensor:
        """Logits `[1 or 2, K, h/4, w/4]` of the heads that the prediction is made of."""
        pyramids = self.encoder(inputs)
        fused = Pyramid(*(self.model.fuse_level(level, pyramids, drop_mask) for level in range(3)))
        heads = {'mask': self.model.mask_decoder, 'auxiliary': self.model.auxiliary_head}
        chosen = self.model.config.prediction
        return torch.cat([head(fused) for n, head in heads.items() if chosen in ('mean', n)])


def percentiles(counts: Tensor, bits: int) -> Tensor:
    """`PERCENTILES` of whole numbers `[1, N]` below 2^bits, float32 `[2]`, as `torch.quantile`.

    The value of rank r is the largest v that no more than r of the numbers are below: its bits are
    found one by one.
    """
    place = torch.tensor(PERCENTILES) * (counts.shape[1] - 1)
    below = place.floor()
    ranks = torch.cat((below, place.ceil()))[:, None]  # [4, 1]
    found = torch.zeros(4, 1)
    for bit in reversed(range(bits)):
        trial = found + float(2**bit)
        # Shares of ones: a sum of so many of them, as a float, is exact.
        fewer = (counts < trial).float().sum(dim=1, keepdim=True) <= ranks
        found = torch.where(fewer, trial, found)
    lower, upper = found[:2, 0], found[2:, 0]
    return lower + (upper - lower) * (place - below)


@torch.jit.script_if_tracing
def _check_size(image: Tensor, size: list[int]) -> Tensor:
    # A trace knows only the one size, and would go on with another.
    if list(image.shape[:2]) != size:
        raise ValueError(f'the image is {image.shape[:2]}; this file takes {size}')
    return image


def _probabilities(logits: Tensor, input_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits of the heads `[1 or 2, K, h, w]` -> their mean probability `[K, >= H, >= W]`.

    As `network.sartm._to_size`, a softmax and the mean, in a form that runtimes are quick at. A
    softmax does not change where all classes lose the same, here what makes the largest of them
    zero; that is done at the small size. So far down as 100 they count nothing, and a pixel between
    four others keeps at least one class above -75, where exp is far from 0.

    Args:
        logits: h and w a quarter of the padded input's.
        input_size: the input's size without its padding.
        size: `(H, W)` that `seen` becomes; what is beyond comes of the padding.
    """
    logits = (logits - logits.amax(dim=1, keepdim=True)).clamp_min(-100)
    factors = [_factor(new, old) for new, old in zip(size, input_size, strict=True)]
    if any(factor % 1 for factor in factors):
        # A spare row and column, equal to what goes on behind the edge, as a runtime's float32 may
        # round the number of rows down.
        logits = F.pad(logits, (0, 1, 0, 1), mode='replicate')
    full = F.interpolate(logits, scale_factor=factors, mode='bilinear')
    powers = full.exp()
    weights = 1 / (powers.sum(dim=1, keepdim=True) * len(logits))
    # The sum of the heads: a mean over the first of the dimensions takes far longer.
    return (powers * weights).sum(dim=0)


def _factor(new: int, old: int) -> float:
    whole = 4 * (new // old)
    return float(whole) if whole * old == 4 * new else 4 * new / old
