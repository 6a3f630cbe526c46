"""Runs a checkpoint on numpy images: one upload, all pixel work on the device, one download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartm_model.data.transforms import ThermalRange, ema_weight, warp_matrix
from sartm_model.errors import SartmError
from sartm_model.inference.cuda_graph import CudaGraphCache
from sartm_model.inference.pipeline import InferencePipeline, Inputs, OutputRequest, frame_params
from sartm_model.inference.stage_clock import StageClock
from sartm_model.inference.transfer import download, upload
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.registration.homography import check_homography

PRECISIONS = {
    'fp32': torch.float32,
    'fp16': torch.float16,
    'bf16': torch.bfloat16,
}


@dataclass(frozen=True)
class Prediction:
    """What is known of one pair; H x W is the RGB image's size.

    Attributes:
        labels: uint8 `[H, W]` of class ids; 255 where the network gave no number.
        confidence: uint8 `[H, W]`, the predicted class's probability times 255, 0 where there is
            none; None if not asked.
        overlay: uint8 RGB `[H, W, 3]`, the image with class colours laid over; None if not asked.
        stages_s: seconds it took by stage: upload (normalisation included), network, download
            (with the labels and pictures that are made of the logits). Of a recorded graph upload
            is the host's part alone and network all of the device's.
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None
    overlay: np.ndarray | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


class Predictor:
    """A network ready to run; `network` is what runs on the device.

    Args:
        checkpoint: a SARTM `.safetensors` file, or 'demo' for the shipped one.
        device: 'auto' (CUDA where there is a GPU), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto' (fp16 on CUDA, fp32 on the CPU), 'fp16', 'bf16' or 'fp32'.
        thermal_range: how thermal counts are scaled; may be set anew between two calls.
        head: 'mean' of the heads' probabilities, 'mask' or 'auxiliary' for one head's; what the
            checkpoint says where left out.
        homography: `[3, 3]`, thermal pixel -> RGB pixel, as in `registration.homography`, or None:
            thermal is resized to the RGB image. May be set anew between two calls.
        engine: 'graph' records each kind of pair once as a CUDA graph, 'eager' asks the device for
            one operation after another, 'parallel' (CPU only) has each half of the cores do its
            part of that; 'auto': graph on CUDA, parallel on a CPU of several cores.

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
        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        self.thermal_range = thermal_range or ThermalRange()
        self.homography = homography
        self._time_s: float | None = None  # of the last pair, if it had one
        loaded = checkpoints.load(checkpoint)
        if head is not None:
            loaded = replace(loaded, config=replace(loaded.config, prediction=head))
        self.head = loaded.config.prediction
        self.label_space = loaded.label_space
        model = _in_precision(checkpoints.build(loaded), PRECISIONS[self.precision])
        self.network = InferencePipeline(model.to(self.device), self.label_space.palette())
        self.engine = _engine(engine, self.device)
        self._captured = CudaGraphCache(self.network) if self.engine == 'graph' else None
        if self.engine == 'parallel':
            self.network.model.enable_parallel()

    @property
    def homography(self) -> np.ndarray | None:
        """Thermal pixel -> RGB pixel, `[3, 3]`, or None where thermal is only resized."""
        return self._homography

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self._homography = None if matrix is None else check_homography(matrix)

    def check(self, thermal_range: ThermalRange, homography: np.ndarray | None) -> None:
        """Raise SartmError unless these can be set; other predictors have their own."""
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
            confidence: also give the confidence.
            overlay: also give the overlay; over the thermal image where there is no RGB.
            overlay_opacity: 0 (image only) to 1 (colours only).
            time_s: of the image in a video, seconds; the thermal range then follows that of the
                images before where `thermal_range` has a `smoothing_s`. Without it the result
                depends on this pair alone.

        Raises:
            SartmError: an image of another shape or type, or none at all; the homography does not
                go with the size of `rgb`.
        """
        settings, asked = self.ask(rgb, thermal, time_s, overlay_opacity)
        asked = asked._replace(confidence=confidence, overlay=overlay)
        if self._captured is not None:
            clock = StageClock(torch.device('cpu'))  # a graph's own stages cannot be told apart
            made = self._captured(rgb, thermal, settings, asked, clock.mark)
        else:
            clock = StageClock(self.device)
            colour, counts, sent = upload([rgb, thermal, settings], self.device)
            assert sent is not None
            made = download(self.network(colour, counts, sent, asked, clock.mark))
        return Prediction(**made, stages_s=clock.seconds('download'))

    def inputs(
        self, rgb: np.ndarray | None, thermal: np.ndarray | None, time_s: float | None = None
    ) -> Inputs:
        """Upload and normalise a pair; arguments and errors are those of `predict`."""
        settings, asked = self.ask(rgb, thermal, time_s)
        colour, counts, sent = upload([rgb, thermal, settings], self.device)
        assert sent is not None
        return self.network.inputs(colour, counts, sent, asked, full_size=True)

    @torch.inference_mode()
    def probabilities(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Class probabilities float32 `[K, H, W]` of images as `inputs` gives them."""
        return self.network.model.segment(rgb, thermal)[0]

    def ask(
        self,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        time_s: float | None,
        opacity: float = 0.0,
    ) -> tuple[np.ndarray, OutputRequest]:
        """The `frame_params` and the `OutputRequest` of a pair; errors as of `predict`."""
        check_images(rgb, thermal)
        range_, homography = self.thermal_range, self._homography  # once: a thread may set them
        matrix = None
        if homography is not None and rgb is not None and thermal is not None:
            checked = check_homography(homography, (rgb.shape[0], rgb.shape[1]))
            matrix = warp_matrix(checked, thermal.shape[0], thermal.shape[1])
        weight = 1.0
        if time_s is not None:
            weight = ema_weight(self._time_s, time_s, range_.smoothing_s)
        if thermal is not None:
            self._time_s = time_s
        settings = frame_params(
            ends=(range_.low, range_.high), weight=weight, opacity=opacity, matrix=matrix
        )
        return settings, OutputRequest(fixed=range_.mode == 'fixed', registered=matrix is not None)

    def warm_up(self, height: int, width: int) -> None:
        """Run on a blank pair, so that the first real one finds memory and traces made."""
        rgb = np.zeros((height, width, 3), np.uint8)
        self.predict(rgb, rgb[..., 0], confidence=True, overlay=True)


def _device(name: str) -> torch.device:
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


def _precision(name: str, device: torch.device) -> str:
    if name == 'auto':
        return 'fp16' if device.type == 'cuda' else 'fp32'
    if name not in PRECISIONS:
        raise SartmError(f'precision {name!r}; expected auto, fp16, bf16 or fp32')
    return name


def _engine(name: str, device: torch.device) -> str:
    if name == 'auto':
        if device.type == 'cuda':
            return 'graph'
        return 'parallel' if torch.get_num_threads() > 1 else 'eager'
    if name not in ('eager', 'graph', 'parallel') or (name == 'parallel' and device.type != 'cpu'):
        raise SartmError(
            f'engine {name!r} on {device}; expected auto, eager, graph or, cpu, halves'
        )
    return name


def _in_precision(model: Sartm, dtype: torch.dtype) -> Sartm:
    model.to(dtype)
    # Coordinates times random frequencies: half precision would blur the finer positions.
    model.mask_decoder.position.float()
    return model


def check_images(rgb: np.ndarray | None, thermal: np.ndarray | None) -> None:
    """Raise SartmError unless `predict` can take them."""
    if rgb is None and thermal is None:
        raise SartmError('no image: give an RGB image, a thermal image or both')
    if rgb is not None and (rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3):
        raise SartmError(f'RGB image is {rgb.dtype} {rgb.shape}; expected uint8 (H, W, 3)')
    if thermal is not None and (thermal.dtype not in (np.uint8, np.uint16) or thermal.ndim != 2):
        raise SartmError(
            f'thermal image is {thermal.dtype} {thermal.shape}; expected uint8 or uint16 (h, w)'
        )
    for name, image in (('RGB', rgb), ('thermal', thermal)):
        if image is not None and image.size == 0:
            raise SartmError(f'{name} image is empty: {image.shape}')
