"""What is done to one pair on the device, from counts to labels, without a wait for the host.

Everything here reads tensors of the device alone and no shape depends on a value, so that a CUDA
graph can hold all of it: see `captured`. What may change from pair to pair travels in one small
tensor, the dials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sartm_model.network import Sartm
from sartm_model.network.labelling import label_map
from sartm_model.network.seams import labels_alone
from sartm_model.network.side_by_side import one_by_one
from sartm_model.preprocess import (
    follow,
    normalise_rgb,
    normalise_thermal,
    percentile_ends,
    planes,
    resize_thermal,
    scale_between,
    warp_thermal,
    widened,
)

Mark = Callable[[str], None]
"""Told the name of a stage at its end."""

DIALS = 13
"""Length of the dials: low, high, weight, opacity, and the nine numbers of a matrix."""


class Asked(NamedTuple):
    """What a prediction is to give and by which way; one graph serves one of them.

    Attributes:
        confidence: also the confidence.
        overlay: also the overlay.
        fixed: thermal is scaled between the dials' low and high, not its percentiles.
        registered: thermal is warped by the dials' matrix, not only resized.
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


def dials(
    *,
    ends: tuple[float, float] = (0.0, 1.0),
    weight: float = 1.0,
    opacity: float = 0.5,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    """The dials, float32 `[13]`.

    Args:
        ends: low and high of a fixed thermal range, in counts.
        weight: see `preprocess.follow_weight`.
        opacity: of the overlay's colours.
        matrix: as of `preprocess.warp_matrix`.
    """
    values = np.zeros(DIALS, np.float32)
    values[:4] = (*ends, weight, opacity)
    if matrix is not None:
        values[4:] = matrix.ravel()
    return values


class FrameNetwork:
    """The network with all that is done on the device before and after it.

    Remembers the thermal range from pair to pair, which the next one follows.

    Args:
        model: in its inference form, on the device and in its precision.
        palette: uint8 `[256, 3]`, the colour of each id.

    Attributes:
        held: float32 `[2]`, the thermal range that the next pair's follows.
        label_kernel: makes the planes of the logits at once, or None: by torch's operations.
    """

    def __init__(self, model: Sartm, palette: np.ndarray) -> None:
        self.model = model
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._palette = torch.from_numpy(palette).to(self.device, torch.float32)
        self.held = torch.zeros(2, device=self.device)
        self.label_kernel = label_kernel(self.device)

    @torch.inference_mode()
    def __call__(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        dials: Tensor,
        asked: Asked,
        mark: Mark = lambda stage: None,
    ) -> dict[str, Tensor]:
        """Segment one pair.

        Args:
            rgb: uint8 `[H, W, 3]`, or None.
            thermal: uint8 or uint16 `[h, w]`, or None.
            dials: float32 `[13]`, as `dials` gives them.
            asked: what is wanted.
            mark: called at the end of a stage with its name, 'upload' or 'network'.

        Returns:
            uint8 planes by name: labels `[H, W]`, 255 where the network gave no number, and as
            asked confidence `[H, W]`, the probability times 255, and overlay `[H, W, 3]`.
        """
        inputs = self.inputs(rgb, thermal, dials, asked, full_size=False)
        mark('upload')
        size = (inputs.backdrop.shape[0], inputs.backdrop.shape[1])
        heads, seen = self.model.coarse(inputs.rgb, inputs.thermal)
        mark('network')
        if self.label_kernel is not None:
            over = (inputs.backdrop, self._palette, dials[3]) if asked.overlay else None
            return self.label_kernel(heads, seen, size, confidence=asked.confidence, overlay=over)
        at_once = self.model.side_by_side
        if self.device.type == 'cpu' and not asked.confidence:
            result = {'labels': labels_alone(heads, seen, size, at_once)}
        else:
            labels, probability = label_map(heads, seen, size, at_once)
            result = {'labels': labels}
        if asked.confidence:
            result['confidence'] = (probability * 255).round().to(torch.uint8)
        if asked.overlay:
            result['overlay'] = self._blend(inputs.backdrop, result['labels'], dials[3])
        return result

    @torch.inference_mode()
    def inputs(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        dials: Tensor,
        asked: Asked,
        *,
        full_size: bool,
    ) -> Inputs:
        """Normalise a pair; thermal comes in RGB's geometry.

        Args:
            rgb, thermal, dials, asked: as above.
            full_size: at the size of the images, not at that which the network sees.
        """
        shrink = nn.Identity() if full_size else self.model.shrink

        def colour(rgb: Tensor) -> Tensor:
            # Shrunk first: both steps are linear, and there is less left to normalise.
            return normalise_rgb(shrink(planes(rgb[None]))).to(self.dtype)

        def heat(scaled: Tensor) -> Tensor:
            maps = normalise_thermal(scaled[None])  # [1, 1, h, w]
            if rgb is not None:
                size = (rgb.shape[0], rgb.shape[1])
                if asked.registered:
                    maps = warp_thermal(maps, dials[4:].view(3, 3), size)
                else:
                    maps = resize_thermal(maps, size)
            return shrink(maps).to(self.dtype)

        if thermal is None:
            assert rgb is not None
            return Inputs(colour(rgb), None, rgb)
        if rgb is None:
            scaled = self._scale(thermal, dials, asked.fixed)
            return Inputs(None, heat(scaled), (scaled.clamp(0, 1) * 255)[..., None])
        on_cpu = self.device.type == 'cpu'
        at_once = (self.model.side_by_side if on_cpu else None) or one_by_one
        rgb_input, thermal_input = at_once(
            lambda: colour(rgb), lambda: heat(self._scale(thermal, dials, asked.fixed))
        )
        return Inputs(rgb_input, thermal_input, rgb)

    def _scale(self, thermal: Tensor, dials: Tensor, fixed: bool) -> Tensor:
        if fixed:
            return scale_between(thermal, dials[:2])
        # Kept in its place: a graph reads it there the next time.
        self.held.copy_(follow(self.held, percentile_ends(thermal), dials[2]))
        return scale_between(thermal, widened(self.held, thermal))

    def _blend(self, backdrop: Tensor, labels: Tensor, opacity: Tensor) -> Tensor:
        """Class colours over the image, uint8 `[H, W, 3]`; id 0 leaves the image as it is."""
        weight = (labels != 0)[..., None] * opacity
        colours = self._palette[labels.int()]
        return torch.lerp(backdrop.float(), colours, weight).round().to(torch.uint8)


def label_kernel(device: torch.device) -> Callable[..., dict[str, Tensor]] | None:
    """`network.label_kernel.label_planes` where that runs on the device, else None."""
    if device.type != 'cuda':
        return None
    try:
        # A Jetson's build of torch may come without Triton, and Triton needs a C compiler there.
        from sartm_model.network.label_kernel import label_planes

        label_planes([torch.zeros(2, 8, 8, device=device)], (32, 32), (32, 32))
    except Exception as error:
        why = f'{type(error).__name__}: {error}'.splitlines()[0]
        warnings.warn(
            f'labels are made by torch, which is slower than the Triton kernel: {why}; '
            f'that needs triton and a C compiler',
            stacklevel=2,
        )
        return None
    return label_planes
