"""What is done to one frame on the device, from counts to labels, without waiting for the host.

Everything here reads tensors on the device alone, and no shape depends on a value, so that a CUDA
graph can record all of it (see `cuda_graph`). The numbers that may change from frame to frame are
sent in one small tensor, the frame parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sartm_model.data.transforms import to_input
from sartm_model.inference.boundary_labels import labels_from_boundaries
from sartm_model.inference.compiled import CompiledNetwork
from sartm_model.inference.overlay import blend_classes
from sartm_model.inference.postprocessing import labels_from_logits
from sartm_model.inference.stage_clock import StageCallback
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_range import scale_thermal
from sartm_model.models.base import SegmentationModel


class OutputRequest(NamedTuple):
    """What a prediction returns and how it is made; a CUDA graph is recorded for each.

    Attributes:
        confidence: also return the confidence.
        overlay: also return the overlay.
        fixed_range: scale the modalities that have a range by the fixed one of the frame parameters
            instead of their percentiles.
        smoothed: scale them by their running range, which the percentiles update; not with
            `fixed_range`.
        warp: warp the second image by the matrix of the frame parameters instead of resizing it.
        invalid_values, black_hot: as in `ThermalSettings`, of the modalities that have a range.
    """

    confidence: bool = False
    overlay: bool = False
    fixed_range: bool = False
    smoothed: bool = False
    warp: bool = False
    invalid_values: tuple[int, ...] = ()
    black_hot: bool = False


class NetworkInputs(NamedTuple):
    """The images of a frame as the network takes them, on its device and in its precision.

    Attributes:
        images: modality name -> normalised `[1, C, H, W]`, of the images that are there.
        background: what an overlay is blended over, counts `[H, W, 3]` or `[H, W, 1]`.
    """

    images: dict[str, Tensor]
    background: Tensor


class FrameParams(NamedTuple):
    """The frame parameters on the device, views of what `pack_frame_params` returns.

    Attributes:
        fixed_range: low and high of a fixed range in counts, `[2]`.
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

    Keeps the running ranges from one frame to the next.

    Args:
        model: in its inference form, on the device and in its precision.
        label_space: the colours of the ids, and which of them an overlay leaves transparent.

    Attributes:
        model: as given.
        compiled: runs the network instead of `model.forward_logits`; None to run that.
        device, dtype: the model's.
        running_ranges: for each modality that has a range its moving average in counts, float32
            `[2]`; NaN before the first image.
    """

    def __init__(self, model: SegmentationModel, label_space: LabelSpace) -> None:
        self.model = model
        self.compiled: CompiledNetwork | None = None
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.running_ranges = {
            name: torch.full((2,), math.nan, device=self.device)
            for name in model.config.modalities
            if MODALITIES[name].has_range
        }
        self._palette = torch.from_numpy(label_space.palette()).to(self.device, torch.float32)
        self._background_id = label_space.background_id

    @torch.inference_mode()
    def __call__(
        self,
        images: Mapping[str, Tensor],
        packed_params: Tensor,
        request: OutputRequest,
        on_stage_end: StageCallback = lambda stage: None,
    ) -> dict[str, Tensor]:
        """Segment one frame.

        Args:
            images: modality -> raw image `[h, w]` or `[h, w, C]`, in the order of the network's
                modalities. The first one sets the size H x W.
            packed_params: float32 `[13]`, as `pack_frame_params` returns them.
            request: what to return.
            on_stage_end: called at the end of the stages 'preprocess' and 'network'.

        Returns:
            uint8 tensors by name: labels `[H, W]`, 255 where the network's result is not a number,
            and as requested confidence `[H, W]`, the probability times 255, and overlay
            `[H, W, 3]`.
        """
        params = unpack_frame_params(packed_params)
        inputs = self.preprocess(images, params, request)
        on_stage_end('preprocess')
        forward_logits = self.compiled or self.model.forward_logits
        heads, extent = forward_logits(inputs.images)
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
        images: Mapping[str, Tensor],
        params: FrameParams,
        request: OutputRequest,
        *,
        full_size: bool = False,
    ) -> NetworkInputs:
        """Scale the images, bring them into the first one's geometry, resize and normalise them.

        Args:
            images, request: as above.
            params: the unpacked frame parameters.
            full_size: keep the size of the first image instead of the size that the network sees.
        """
        first = next(iter(images))
        second = (*images, '')[1]
        image_size = (images[first].shape[0], images[first].shape[1])
        size = image_size if full_size else self.model.scaled_size(image_size)

        def prepare(name: str) -> tuple[Tensor, Tensor]:
            scaled = self._scale(name, images[name], params, request)
            matrix = params.warp_matrix if request.warp and name == second else None
            return scaled, to_input(name, scaled[None], image_size, matrix, size).to(self.dtype)

        work = [partial(prepare, name) for name in images]
        # On a GPU these are too short for streams.
        if len(work) == 2 and self.model.runner is not None and self.device.type == 'cpu':
            prepared = list(self.model.runner(work[0], work[1]))
        else:
            prepared = [prepare_one() for prepare_one in work]
        inputs = {name: tensor for name, (_, tensor) in zip(images, prepared, strict=True)}
        return NetworkInputs(inputs, MODALITIES[first].backdrop(prepared[0][0]))

    def _scale(
        self, name: str, image: Tensor, params: FrameParams, request: OutputRequest
    ) -> Tensor:
        """Scale a raw image, by a range if its modality has one."""
        modality = MODALITIES[name]
        if not modality.has_range:
            return modality.scale(image)
        running = (self.running_ranges[name], params.range_weight) if request.smoothed else None
        scaled: Tensor = scale_thermal(
            image,
            params.fixed_range if request.fixed_range else None,
            running=running,
            invalid_values=request.invalid_values,
            black_hot=request.black_hot,
        )
        return scaled
