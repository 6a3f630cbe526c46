"""What is done to one pair on the device, from counts to labels, without waiting for the host.

Everything here reads tensors on the device alone, and no shape depends on a value, so that a CUDA
graph can record all of it (see `cuda_graph`). The numbers that may change from frame to frame are
sent in one small tensor, the frame parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sartm_model.data.thermal_range import enforce_min_span, scale_counts
from sartm_model.data.transforms import (
    ema_update,
    percentile_range,
    preprocess_rgb,
    preprocess_thermal,
    to_counts,
)
from sartm_model.inference.boundary_labels import labels_from_boundaries
from sartm_model.inference.overlay import blend_classes
from sartm_model.inference.postprocessing import labels_from_logits
from sartm_model.inference.stage_clock import StageCallback
from sartm_model.labels import LabelSpace
from sartm_model.models.base import SegmentationModel
from sartm_model.utils.parallel import run_sequential


class OutputRequest(NamedTuple):
    """What a prediction returns and how it is made; a CUDA graph is recorded for each.

    Attributes:
        confidence: also return the confidence.
        overlay: also return the overlay.
        fixed_range: scale thermal between the fixed range of the frame parameters instead of its
            percentiles.
        warp: warp thermal by the matrix of the frame parameters instead of resizing it.
    """

    confidence: bool = False
    overlay: bool = False
    fixed_range: bool = False
    warp: bool = False


class NetworkInputs(NamedTuple):
    """A pair as the network takes it, on its device and in its precision.

    Attributes:
        images: modality name -> normalised `[1, C, H, W]`, C = 3 for RGB and 1 for thermal, of
            the images that are there.
        background: what an overlay is blended over, counts `[H, W, 3]`, or `[H, W, 1]` of thermal.
    """

    images: dict[str, Tensor]
    background: Tensor


class FrameParams(NamedTuple):
    """The frame parameters on the device, views of what `pack_frame_params` returns.

    Attributes:
        fixed_range: low and high of a fixed thermal range in counts, `[2]`.
        range_weight: weight of the image's own range in the running range, a number.
        overlay_opacity: a number.
        warp_matrix: as `transforms.warp_matrix` returns it, `[3, 3]`.
    """

    fixed_range: Tensor
    range_weight: Tensor
    overlay_opacity: Tensor
    warp_matrix: Tensor


def pack_frame_params(
    *,
    fixed_range: tuple[float, float] = (0.0, 1.0),
    range_weight: float = 1.0,
    overlay_opacity: float = 0.5,
    warp_matrix: np.ndarray | None = None,
) -> np.ndarray:
    """Pack the frame parameters for one transfer, float32 `[13]`; see `FrameParams`."""
    packed = np.zeros(13, np.float32)
    packed[:4] = (*fixed_range, range_weight, overlay_opacity)
    if warp_matrix is not None:
        packed[4:] = warp_matrix.ravel()
    return packed


def unpack_frame_params(packed: Tensor) -> FrameParams:
    """Return views of what `pack_frame_params` packed."""
    return FrameParams(packed[:2], packed[2], packed[3], packed[4:].view(3, 3))


class InferencePipeline:
    """The network with its preprocessing and postprocessing, on the device.

    Keeps the running thermal range from one pair to the next.

    Args:
        model: in its inference form, on the device and in its precision.
        label_space: the colours of the ids, and which of them an overlay leaves transparent.

    Attributes:
        model: as given.
        device, dtype: the model's.
        running_range: float32 `[2]`, the moving average of the thermal range in counts.
    """

    def __init__(self, model: SegmentationModel, label_space: LabelSpace) -> None:
        self.model = model
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.running_range = torch.zeros(2, device=self.device)
        self._palette = torch.from_numpy(label_space.palette()).to(self.device, torch.float32)
        self._background_id = label_space.background_id

    @torch.inference_mode()
    def __call__(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        packed_params: Tensor,
        request: OutputRequest,
        on_stage_end: StageCallback = lambda stage: None,
    ) -> dict[str, Tensor]:
        """Segment one pair.

        Args:
            rgb: uint8 `[H, W, 3]`, or None.
            thermal: uint8 or uint16 `[h, w]`, or None.
            packed_params: float32 `[13]`, as `pack_frame_params` returns them.
            request: what to return.
            on_stage_end: called at the end of the stages 'upload' and 'network'.

        Returns:
            uint8 tensors by name: labels `[H, W]`, 255 where the network's result is not a number,
            and as requested confidence `[H, W]`, the probability times 255, and overlay
            `[H, W, 3]`.
        """
        params = unpack_frame_params(packed_params)
        inputs = self.preprocess(rgb, thermal, params, request)
        on_stage_end('upload')
        heads, extent = self.model.forward_logits(inputs.images)
        on_stage_end('network')
        size = (inputs.background.shape[0], inputs.background.shape[1])
        runner = self.model.runner
        outputs: dict[str, Tensor] = {}
        if self.device.type == 'cpu' and not request.confidence:
            labels = labels_from_boundaries(heads, extent, size, runner)
        else:
            labels, confidence = labels_from_logits(heads, extent, size, runner)
            if request.confidence:
                outputs['confidence'] = (confidence * 255).round().to(torch.uint8)
        if request.overlay:
            colors = self._palette[labels.int()]
            background = inputs.background.float()
            blended = blend_classes(
                background, labels, colors, params.overlay_opacity, self._background_id
            )
            outputs['overlay'] = blended.to(torch.uint8)
        return {'labels': labels, **outputs}

    @torch.inference_mode()
    def preprocess(
        self,
        rgb: Tensor | None,
        thermal: Tensor | None,
        params: FrameParams,
        request: OutputRequest,
        *,
        full_size: bool = False,
    ) -> NetworkInputs:
        """Scale and normalise a pair, bring thermal into RGB's geometry and resize both.

        Args:
            rgb, thermal, request: as above.
            params: the unpacked frame parameters.
            full_size: keep the size of the images instead of the size that the network sees.
        """
        image = thermal if rgb is None else rgb
        assert image is not None
        image_size = (image.shape[0], image.shape[1])
        size = image_size if full_size else self.model.scaled_size(image_size)

        def rgb_input() -> Tensor | None:
            return None if rgb is None else preprocess_rgb(rgb[None], size).to(self.dtype)

        def thermal_input() -> tuple[Tensor | None, Tensor | None]:
            if thermal is None:
                return None, None
            scaled = self._scale(thermal, params, request.fixed_range)
            matrix = params.warp_matrix if request.warp else None
            inputs = preprocess_thermal(scaled[None], image_size, matrix, size)
            return inputs.to(self.dtype), scaled

        # On a GPU these are too short for two streams.
        runner = (self.model.runner if self.device.type == 'cpu' else None) or run_sequential
        rgb_images, (thermal_images, scaled) = runner(rgb_input, thermal_input)
        both = {'rgb': rgb_images, 'thermal': thermal_images}
        images = {name: tensor for name, tensor in both.items() if tensor is not None}
        if rgb is not None:
            return NetworkInputs(images, rgb)
        assert scaled is not None
        return NetworkInputs(images, (scaled.clip(0, 1) * 255)[..., None])

    def _scale(self, thermal: Tensor, params: FrameParams, fixed: bool) -> Tensor:
        """Scale thermal counts `[h, w]` to [-1, 2], float32."""
        counts = to_counts(thermal)
        if fixed:
            return scale_counts(counts, params.fixed_range)
        new_range = percentile_range(counts)
        # In place, because a CUDA graph reads it there the next time.
        self.running_range.copy_(ema_update(self.running_range, new_range, params.range_weight))
        ends = enforce_min_span(self.running_range, thermal.dtype == torch.uint8)
        return scale_counts(counts, ends)
