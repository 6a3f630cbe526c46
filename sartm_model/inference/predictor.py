"""Runs a checkpoint on numpy images: one transfer to the device, all pixel work there, one back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from sartm_model.data.thermal_range import ThermalRange, ema_weight
from sartm_model.data.transforms import warp_matrix
from sartm_model.errors import SartmError
from sartm_model.inference.cuda_graph import CudaGraphCache
from sartm_model.inference.pipeline import (
    InferencePipeline,
    NetworkInputs,
    OutputRequest,
    pack_frame_params,
    unpack_frame_params,
)
from sartm_model.inference.prediction import Prediction, check_images
from sartm_model.inference.stage_clock import StageClock
from sartm_model.inference.transfer import to_device, to_host
from sartm_model.models import checkpoint as checkpoints
from sartm_model.registration.homography import check_homography
from sartm_model.utils.parallel import ParallelRunner

PRECISIONS = {
    'fp32': torch.float32,
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
}


class Predictor:
    """A checkpoint ready to run. One thread at a time may call it.

    Args:
        checkpoint: a SARTM `.safetensors` file, or 'demo' for the one that comes with the package.
        device: 'auto' (CUDA where there is a GPU), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto' (fp16 on CUDA, fp32 on the CPU), 'fp16', 'bf16' or 'fp32'.
        thermal_range: how thermal counts are scaled; may be set between two calls.
        head: 'mean' of the heads' probabilities, or the name of one head, 'mask' or 'auxiliary'
            in sartm; the checkpoint's own setting where left out.
        homography: `[3, 3]`, thermal pixel -> RGB pixel, as in `registration.homography`. Without
            it thermal is resized to the RGB image. May be set between two calls.
        engine: 'eager' runs one operation after another. 'graph' records a CUDA graph for each kind
            of pair. 'parallel' (CPU only) runs independent parts of the network in parallel, each
            on half of the cores. 'auto' is graph on CUDA, parallel on a CPU of several cores, else
            eager.

    Attributes:
        pipeline: the network with its preprocessing and postprocessing.
        label_space: the checkpoint's classes.
        device, precision, head, engine: as chosen.

    Raises:
        SartmError: the checkpoint, the device, the precision, the head, the homography or the
            engine cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path = 'demo',
        *,
        device: str = 'auto',
        precision: str = 'auto',
        thermal_range: ThermalRange | None = None,
        head: str | None = None,
        homography: np.ndarray | None = None,
        engine: str = 'auto',
    ) -> None:
        self.device = _choose_device(device)
        self.precision = _choose_precision(precision, self.device)
        self.engine = _choose_engine(engine, self.device)
        self.thermal_range = thermal_range or ThermalRange()
        self.homography = homography
        self._previous_s: float | None = None  # time of the previous pair, if it had one
        loaded = checkpoints.load(checkpoint)
        if head is not None:
            loaded = replace(loaded, config=replace(loaded.config, prediction=head))
        self.head = loaded.config.prediction
        self.label_space = loaded.label_space
        model = checkpoints.build(loaded).to_precision(PRECISIONS[self.precision])
        self.pipeline = InferencePipeline(model.to(self.device), self.label_space)
        self._graphs = CudaGraphCache(self.pipeline) if self.engine == 'graph' else None
        self._runner = ParallelRunner() if self.engine == 'parallel' else None
        if self._runner is not None:
            self.pipeline.model.enable_parallel(self._runner)

    @property
    def homography(self) -> np.ndarray | None:
        """Thermal pixel -> RGB pixel, `[3, 3]`, or None where thermal is only resized."""
        return self._homography

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self._homography = None if matrix is None else check_homography(matrix)

    def check(self, thermal_range: ThermalRange, homography: np.ndarray | None) -> None:
        """Raise SartmError unless both could be set; `OnnxPredictor` can take fewer."""
        if homography is not None:
            check_homography(homography)

    def predict(
        self,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        *,
        confidence: bool = False,
        overlay: bool = False,
        overlay_opacity: float = 0.5,
        time_s: float | None = None,
    ) -> Prediction:
        """Segment one pair.

        Args:
            rgb: uint8 `[H, W, 3]`; a reversed view of a BGR image is taken as it is. None where
                there is no RGB: thermal then sets the size.
            thermal: uint8 or uint16 `[h, w]`, of the same field of view or with a homography set;
                None where there is none.
            confidence: also return the confidence.
            overlay: also return the overlay; over the thermal image where there is no RGB.
            overlay_opacity: 0 (image only) to 1 (colours only).
            time_s: time of the images in a video, in seconds, if `thermal_range` has a
                `smoothing_s`. Without it the result depends on this pair alone.

        Raises:
            SartmError: an image has another shape or type, none is given, or the homography does
                not go with the size of `rgb`.
        """
        packed_params, request = self._frame_request(rgb, thermal, time_s, overlay_opacity)
        request = request._replace(confidence=confidence, overlay=overlay)
        if self._graphs is not None:
            clock = StageClock()  # the stages within a graph cannot be told apart
            outputs = self._graphs(rgb, thermal, packed_params, request, clock.end_stage)
        else:
            clock = StageClock(self.device if self.device.type == 'cuda' else None)
            rgb_tensor, thermal_tensor, params = to_device(
                [rgb, thermal, packed_params], self.device
            )

            def run() -> dict[str, np.ndarray]:
                return to_host(
                    self.pipeline(rgb_tensor, thermal_tensor, params, request, clock.end_stage)
                )

            outputs = run() if self._runner is None else self._runner.run(run)
        return Prediction(**outputs, stages_s=clock.stages_s('download'))

    def preprocess(
        self, rgb: np.ndarray | None, thermal: np.ndarray | None, time_s: float | None = None
    ) -> NetworkInputs:
        """Send a pair to the device and preprocess it at its own size.

        Arguments and errors are those of `predict`.
        """
        packed_params, request = self._frame_request(rgb, thermal, time_s)
        rgb_tensor, thermal_tensor, params = to_device([rgb, thermal, packed_params], self.device)
        return self.pipeline.preprocess(
            rgb_tensor, thermal_tensor, unpack_frame_params(params), request, full_size=True
        )

    @torch.inference_mode()
    def probabilities(self, images: Mapping[str, Tensor]) -> Tensor:
        """Return the class probabilities, float32 `[K, H, W]`, of preprocessed images."""
        return self.pipeline.model.segment(images)[0]

    def warm_up(
        self, height: int, width: int, thermal_dtypes: Sequence[DTypeLike] = (np.uint8, np.uint16)
    ) -> None:
        """Run on blank images, so that the first frames need not allocate or record a graph.

        With the engine 'graph' this records labels alone, of pairs with each type of thermal image
        and of RGB alone, which is what is left when the thermal camera stalls. The range mode and
        the homography that are set now are part of it. A confidence or an overlay is recorded when
        it is first requested, and so are thermal images of another size than RGB.

        Args:
            height, width: of both images, pixels.
            thermal_dtypes: uint8, uint16 or both.
        """
        rgb = np.zeros((height, width, 3), np.uint8)
        pairs = [(rgb, np.zeros((height, width), dtype)) for dtype in thermal_dtypes]
        for images in [*pairs, (rgb, None)] if self._graphs is not None else pairs[:1]:
            self.predict(*images)

    def _frame_request(
        self,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        time_s: float | None,
        overlay_opacity: float = 0.0,
    ) -> tuple[np.ndarray, OutputRequest]:
        """Check a pair; return its packed frame parameters and the request for its labels."""
        check_images(rgb, thermal)
        range_, homography = self.thermal_range, self._homography  # once: a thread may set them
        matrix = None
        if homography is not None and rgb is not None and thermal is not None:
            checked = check_homography(homography, (rgb.shape[0], rgb.shape[1]))
            matrix = warp_matrix(checked, thermal.shape[0], thermal.shape[1])
        weight = 1.0
        if time_s is not None:
            weight = ema_weight(self._previous_s, time_s, range_.smoothing_s)
        if thermal is not None:
            self._previous_s = time_s
        packed_params = pack_frame_params(
            fixed_range=(range_.low, range_.high),
            range_weight=weight,
            overlay_opacity=overlay_opacity,
            warp_matrix=matrix,
        )
        fixed_range = range_.mode == 'fixed' and thermal is not None
        return packed_params, OutputRequest(fixed_range=fixed_range, warp=matrix is not None)


def _choose_device(name: str) -> torch.device:
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise SartmError(f'device {name!r}; expected auto, cpu, cuda or cuda:N')
    device = torch.device(name)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise SartmError(
            f'device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; '
            f'use cpu, or install a CUDA build of torch'
        )
    return device


def _choose_precision(name: str, device: torch.device) -> str:
    if name == 'auto':
        return 'fp16' if device.type == 'cuda' else 'fp32'
    if name not in PRECISIONS:
        raise SartmError(f'precision {name!r}; expected auto, {", ".join(PRECISIONS)}')
    return name


def _choose_engine(name: str, device: torch.device) -> str:
    if name == 'auto':
        if device.type == 'cuda':
            return 'graph'
        return 'parallel' if torch.get_num_threads() > 1 else 'eager'
    if name not in ('eager', 'graph', 'parallel') or (name == 'parallel' and device.type != 'cpu'):
        raise SartmError(
            f'engine {name!r} on {device}; expected auto, eager, graph or, on a CPU, parallel'
        )
    return name
