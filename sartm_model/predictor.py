"""Runs a checkpoint on numpy images: one upload, all pixel work on the device, one download."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sartm_model import checkpoint as checkpoints
from sartm_model.errors import SartmError
from sartm_model.labels import IGNORE_ID
from sartm_model.network import Sartm
from sartm_model.preprocess import (
    HeldRange,
    ThermalRange,
    follow,
    normalise_rgb,
    normalise_thermal,
    resize_thermal,
    scale_thermal,
    thermal_ends,
    warp_thermal,
)
from sartm_model.registration.homography import check_homography
from sartm_model.stages import StageClock

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class Prediction:
    """What is known of one pair; H x W is the RGB image's size.

    Attributes:
        labels: uint8 `[H, W]` of class ids; 255 where the network gave no number.
        confidence: uint8 `[H, W]`, the predicted class's probability times 255, 0 where there is
            none; None if not asked.
        overlay: uint8 RGB `[H, W, 3]`, the image with class colours laid over; None if not asked.
        stages_s: seconds it took by stage: upload (normalisation included), network, download
            (with the labels and pictures that are made of the probabilities).
    """

    labels: np.ndarray
    confidence: np.ndarray | None = None
    overlay: np.ndarray | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


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


class Predictor:
    """A network ready to run.

    Args:
        checkpoint: a SARTM `.safetensors` file, or 'demo' for the shipped one.
        device: 'auto' (CUDA where there is a GPU), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto' (fp16 on CUDA, fp32 on the CPU), 'fp16', 'bf16' or 'fp32'.
        thermal_range: how thermal counts are scaled; may be set anew between two calls.
        head: 'mean' of the heads' probabilities, 'mask' or 'auxiliary' for one head's; what the
            checkpoint says where left out.
        homography: `[3, 3]`, thermal pixel -> RGB pixel, as in `registration.homography`, or None:
            thermal is resized to the RGB image. May be set anew between two calls.

    Raises:
        SartmError: the checkpoint, the device, the precision, the head or the homography cannot be
            used.
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
    ) -> None:
        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        self.thermal_range = thermal_range or ThermalRange()
        self.homography = homography
        self._held: HeldRange | None = None
        loaded = checkpoints.load(checkpoint)
        if head is not None:
            loaded = replace(loaded, config=replace(loaded.config, prediction=head))
        self.head = loaded.config.prediction
        self.label_space = loaded.label_space
        self._dtype = PRECISIONS[self.precision]
        self._model = _in_precision(checkpoints.build(loaded), self._dtype).to(self.device)
        palette = torch.from_numpy(self.label_space.palette())
        self._palette = palette.to(self.device, torch.float32)

    @property
    def homography(self) -> np.ndarray | None:
        """Thermal pixel -> RGB pixel, `[3, 3]`, or None where thermal is only resized."""
        return self._homography

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self._homography = None if matrix is None else check_homography(matrix)

    @torch.inference_mode()
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
        clock = StageClock(self.device)
        inputs = self.inputs(rgb, thermal, time_s)
        clock.mark('upload')
        probabilities = self.probabilities(inputs.rgb, inputs.thermal)
        clock.mark('network')
        probability, labels = probabilities.max(dim=0)  # [H, W]
        labels = labels.masked_fill(probability.isnan(), IGNORE_ID)  # one NaN is the maximum of all
        planes = {'labels': labels.to(torch.uint8)}
        if confidence:
            planes['confidence'] = (probability.nan_to_num(0) * 255).round().to(torch.uint8)
        if overlay:
            planes['overlay'] = self._blend(inputs.backdrop, labels, overlay_opacity)
        return replace(_download(planes), stages_s=clock.seconds('download'))

    @torch.inference_mode()
    def inputs(
        self, rgb: np.ndarray | None, thermal: np.ndarray | None, time_s: float | None = None
    ) -> Inputs:
        """Upload and normalise a pair; arguments and errors are those of `predict`."""
        _check_images(rgb, thermal)
        colour, counts = _on_device([rgb, thermal], self.device)
        rgb_input = thermal_input = None
        if counts is not None:
            scaled = self._scale(counts, time_s)
            backdrop = (scaled.clamp(0, 1) * 255)[..., None]
            thermal_input = normalise_thermal(scaled[None])  # [1, 1, h, w]
        if colour is not None:
            backdrop = colour
            rgb_input = normalise_rgb(colour[None]).to(self._dtype)  # [1, 3, H, W]
            if thermal_input is not None:
                thermal_input = self._register(thermal_input, (colour.shape[0], colour.shape[1]))
        if thermal_input is not None:
            thermal_input = thermal_input.to(self._dtype)
        return Inputs(rgb_input, thermal_input, backdrop)

    @torch.inference_mode()
    def probabilities(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Class probabilities float32 `[K, H, W]` of images as `inputs` gives them."""
        return self._model.segment(rgb, thermal)[0]

    def _scale(self, thermal: Tensor, time_s: float | None) -> Tensor:
        range_ = self.thermal_range  # once: another thread may set it
        if time_s is None or range_.mode == 'fixed' or not range_.smoothing_s:
            return scale_thermal(thermal, range_)
        ends = thermal_ends(thermal, range_)
        self._held = follow(self._held, ends, time_s, range_.smoothing_s)
        return scale_thermal(thermal, range_, self._held.ends)

    def _register(self, thermal: Tensor, size: tuple[int, int]) -> Tensor:
        """A thermal map `[1, 1, h, w]` in the geometry of an RGB image of `(H, W)`."""
        homography = self._homography  # once: another thread may set it
        if homography is None:
            return resize_thermal(thermal, size)
        return warp_thermal(thermal, check_homography(homography, size), size)

    def _blend(self, backdrop: Tensor, labels: Tensor, opacity: float) -> Tensor:
        """Class colours over the image, uint8 `[H, W, 3]`; id 0 leaves the image as it is."""
        weight = (labels != 0)[..., None] * opacity
        return torch.lerp(backdrop.float(), self._palette[labels], weight).round().to(torch.uint8)

    def warm_up(self, height: int, width: int) -> None:
        """Run once on a blank pair, so that the first real one meets allocated memory."""
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


def _in_precision(model: Sartm, dtype: torch.dtype) -> Sartm:
    model.to(dtype)
    # Coordinates times random frequencies: half precision would blur the finer positions.
    model.mask_decoder.position.float()
    return model


def _check_images(rgb: np.ndarray | None, thermal: np.ndarray | None) -> None:
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


def _on_device(images: list[np.ndarray | None], device: torch.device) -> list[Tensor | None]:
    """The images as tensors of the device; on the CPU they share the arrays' memory."""
    if device.type == 'cpu':
        return [None if image is None else _view(image) for image in images]
    return _upload(images, device)


def _view(image: np.ndarray) -> Tensor:
    reversed_axes = tuple(axis for axis, stride in enumerate(image.strides) if stride < 0)
    # torch has no negative strides: a reversal, such as BGR seen as RGB, is done over in torch.
    forward = np.flip(image, reversed_axes) if reversed_axes else image
    with warnings.catch_warnings():
        # torch warns of read-only memory, such as a message's bytes; nothing here writes to it.
        warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
        tensor = torch.from_numpy(forward)
    return tensor.flip(reversed_axes) if reversed_axes else tensor


def _upload(images: list[np.ndarray | None], device: torch.device) -> list[Tensor | None]:
    """Gather the images in one page-locked buffer and send that in a single transfer."""
    sizes = [0 if image is None else image.nbytes for image in images]
    # Sixteen-bit counts are read back as such, so every image begins at a multiple of their size.
    padded = [size + size % 2 for size in sizes]
    staging = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=device.type == 'cuda')
    for image, part in zip(images, staging.split(padded), strict=True):
        if image is not None:
            np.copyto(part.numpy()[: image.nbytes].view(image.dtype).reshape(image.shape), image)
    sent = staging.to(device, non_blocking=True)
    tensors: list[Tensor | None] = []
    for image, size, part in zip(images, sizes, sent.split(padded), strict=True):
        if image is None:
            tensors.append(None)
        else:
            dtype = torch.uint16 if image.dtype == np.uint16 else torch.uint8
            tensors.append(part[:size].view(dtype).view(image.shape))
    return tensors


def _download(planes: dict[str, Tensor]) -> Prediction:
    """All results in one transfer; each is a contiguous view of the one buffer."""
    sizes = [plane.numel() for plane in planes.values()]
    flat = torch.cat([plane.flatten() for plane in planes.values()]).cpu()
    parts = (
        part.view(plane.shape).numpy()
        for part, plane in zip(flat.split(sizes), planes.values(), strict=True)
    )
    return Prediction(**dict(zip(planes, parts, strict=True)))
