"""What is done to one pair on the device, from counts to labels, without a wait for the host.

Everything here reads tensors of the device alone and no shape depends on a value, so that a CUDA
graph can hold all of it: see `captured`. What may change from pair to pair travels in one small
tensor, the frame_params.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sartm_model.data.transforms import (
    enforce_min_span,
    follow,
    normalise_rgb,
    normalise_thermal,
    percentile_range,
    planes,
    resize_thermal,
    scale_between,
    warp_thermal,
)
from sartm_model.inference.boundary_labels import labels_alone
from sartm_model.inference.postprocessing import label_map
from sartm_model.models.sartm import Sartm
from sartm_model.utils.parallel import run_sequential

Mark = Callable[[str], None]
"""Told the name of a stage at its end."""

FRAME_PARAMS = 13
"""Length of the frame_params: low, high, weight, opacity, and the nine numbers of a matrix."""


class OutputRequest(NamedTuple):
    """What a prediction is to give and by which way; one graph serves one of them.

    Attributes:
        confidence: also the confidence.
        overlay: also the overlay.
        fixed: thermal is scaled between the frame_params' low and high, not its percentiles.
        registered: thermal is warped by the frame_params' matrix, not only resized.
    """

    confidence: bool = False
    overlay: bool = False
    fixed: bool = False
    registered: bool = False


class Inputs(NamedTuple):
    """A pair as the network takes it, on its device and in its precision.

    Attributes:
        rgb: normalised `[1, 3, H, W]`, or None.
        thermal: normalised `[1, 1, H, W]`, or None.
        backdrop: what an overlay is laid over, counts `[H, W, 3]` or `[H, W, 1]`.
    """

    rgb: Tensor | None
    thermal: Tensor | None
    backdrop: Tensor


def frame_params(
    *,
    ends: tuple[float, float] = (0.0, 1.0),
    weight: float = 1.0,
    opacity: float = 0.5,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    """The frame_params, float32 `[13]`.

    Args:
        ends: low and high of a fixed thermal range, in counts.
        weight: see `preprocess.ema_weight`.
        opacity: of the overlay's colours.
        matrix: as of `preprocess.warp_matrix`.
    """
    values = np.zeros(FRAME_PARAMS, np.float32)
    values[:4] = (*ends, weight, opacity)
    if matrix is not None:
        values[4:] = matrix.ravel()
    return values


class InferencePipeline:
    """The network with all that is done on the device before and after it.

    Remembers the thermal range from pair to pair, which the next one follows.

    Args:
        model: in its inference form, on the device and in its precision.
        palette: uint8 `[256, 3]`, the colour of each id.

    Attributes:
        held: float32 `[2]`, the thermal range that the next pair's follows.
    """

    def __init__(self, model: Sartm, palette: np.ndarray) -> None:
        self.model = model
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._palette = torch.from_numpy(palette).to(self.device, torch.float32)
        self.held = torch.zeros(2, device=self.device)

    @torch.inference_mode()
    def __call__(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        frame_params: Tensor,
        asked: OutputRequest,
        mark: Mark = lambda stage: None,
    ) -> dict[str, Tensor]:
        """Segment one pair.

        Args:
            rgb: uint8 `[H, W, 3]`, or None.
            thermal: uint8 or uint16 `[h, w]`, or None.
            frame_params: float32 `[13]`, as `frame_params` gives them.
            asked: what is wanted.
            mark: called at the end of a stage with its name, 'upload' or 'network'.

        Returns:
            uint8 planes by name: labels `[H, W]`, 255 where the network gave no number, and as
            asked confidence `[H, W]`, the probability times 255, and overlay `[H, W, 3]`.
        """
        inputs = self.inputs(rgb, thermal, frame_params, asked, full_size=False)
        mark('upload')
        size = (inputs.backdrop.shape[0], inputs.backdrop.shape[1])
        heads, input_size = self.model.forward_logits(inputs.rgb, inputs.thermal)
        mark('network')
        at_once = self.model.runner
        if self.device.type == 'cpu' and not asked.confidence:
            result = {'labels': labels_alone(heads, input_size, size, at_once)}
        else:
            labels, probability = label_map(heads, input_size, size, at_once)
            result = {'labels': labels}
        if asked.confidence:
            result['confidence'] = (probability * 255).round().to(torch.uint8)
        if asked.overlay:
            result['overlay'] = self._blend(inputs.backdrop, result['labels'], frame_params[3])
        return result

    @torch.inference_mode()
    def inputs(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        frame_params: Tensor,
        asked: OutputRequest,
        *,
        full_size: bool,
    ) -> Inputs:
        """Normalise a pair; thermal comes in RGB's geometry.

        Args:
            rgb, thermal, frame_params, asked: as above.
            full_size: at the size of the images, not at that which the network sees.
        """
        shrink = nn.Identity() if full_size else self.model.resize_input

        def colour(rgb: Tensor) -> Tensor:
            # Shrunk first: both steps are linear, and there is less left to normalise.
            return normalise_rgb(shrink(planes(rgb[None]))).to(self.dtype)

        def heat(scaled: Tensor) -> Tensor:
            maps = normalise_thermal(scaled[None])  # [1, 1, h, w]
            if rgb is not None:
                size = (rgb.shape[0], rgb.shape[1])
                if asked.registered:
                    maps = warp_thermal(maps, frame_params[4:].view(3, 3), size)
                else:
                    maps = resize_thermal(maps, size)
            return shrink(maps).to(self.dtype)

        if thermal is None:
            assert rgb is not None
            return Inputs(colour(rgb), None, rgb)
        if rgb is None:
            scaled = self._scale(thermal, frame_params, asked.fixed)
            return Inputs(None, heat(scaled), (scaled.clamp(0, 1) * 255)[..., None])
        on_cpu = self.device.type == 'cpu'
        at_once = (self.model.runner if on_cpu else None) or run_sequential
        rgb_input, thermal_input = at_once(
            lambda: colour(rgb), lambda: heat(self._scale(thermal, frame_params, asked.fixed))
        )
        return Inputs(rgb_input, thermal_input, rgb)

    def _scale(self, thermal: Tensor, frame_params: Tensor, fixed: bool) -> Tensor:
        if fixed:
            return scale_between(thermal, frame_params[:2])
        # Kept in its place: a graph reads it there the next time.
        self.held.copy_(follow(self.held, percentile_range(thermal), frame_params[2]))
        return scale_between(thermal, enforce_min_span(self.held, thermal))

    def _blend(self, backdrop: Tensor, labels: Tensor, opacity: Tensor) -> Tensor:
        """Class colours over the image, uint8 `[H, W, 3]`; id 0 leaves the image as it is."""
        weight = (labels != 0)[..., None] * opacity
        colours = self._palette[labels.int()]
        return torch.lerp(backdrop.float(), colours, weight).round().to(torch.uint8)
