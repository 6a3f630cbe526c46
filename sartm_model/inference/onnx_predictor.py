"""Runs a file of `sartm export` by ONNX Runtime, with the interface of `Predictor`.

Imports neither torch nor SAM2.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.inference.export_config import PRESENT, ExportConfig
from sartm_model.inference.onnx_session import (
    CUDA_PROVIDER,
    choose_providers,
    open_session,
    read_metadata,
)
from sartm_model.inference.overlay import blend_classes
from sartm_model.inference.prediction import Images, Prediction, check_images
from sartm_model.inference.stage_clock import StageClock
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_settings import ThermalSettings

_log = logging.getLogger(__name__)


class OnnxPredictor:
    """An exported network ready to run. Scaling of thermal, head and precision are the file's.

    Args:
        checkpoint: an `.onnx` file written by `sartm export`.
        device: 'auto' (CUDA where ONNX Runtime has it), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto', or that of the file.
        thermal_settings: None, or those of the file.
        head: None, or that of the file.
        homography: None; an exported file only resizes thermal.
        engine: 'auto'; ONNX Runtime runs the file.
        threads: of the CPU; 0 for one a core.

    Attributes:
        path: the file.
        config: the images that it takes.
        label_space, head, precision: the file's.
        engine: 'onnx'.
        device: 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        SartmError: ONNX Runtime is missing, the file was not written by `sartm export`, the device
            is not there, or the file was exported with another precision, head or other thermal
            settings.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        thermal_settings: ThermalSettings | None = None,
        head: str | None = None,
        homography: np.ndarray | None = None,
        engine: str = 'auto',
        threads: int = 0,
    ) -> None:
        self.path = Path(checkpoint)
        if engine != 'auto':
            raise SartmError(
                f'engine {engine!r} with {self.path}, which ONNX Runtime runs; leave the engine '
                'out, or use the .safetensors checkpoint'
            )
        self.engine = 'onnx'
        self.device, providers = choose_providers(device)
        self._session = open_session(self.path, providers, threads)
        if self.device != 'cpu' and CUDA_PROVIDER not in self._session.get_providers():
            # ONNX Runtime goes on without a provider whose libraries it cannot load.
            if device != 'auto':
                raise SartmError(
                    f'device {device!r} cannot be used: ONNX Runtime has CUDA, but cannot load its '
                    'libraries; install the CUDA and cuDNN that it was built for, or use cpu'
                )
            _log.warning('the CPU is used: ONNX Runtime cannot load the libraries of CUDA')
            self.device = 'cpu'
        texts = read_metadata(self._session, self.path)
        optional = {value.name for value in self._session.get_overridable_initializers()}
        self._may_miss_one = PRESENT in optional
        try:
            self.label_space = LabelSpace.from_dict(json.loads(texts['labels']))
            self.head: str = json.loads(texts['model'])['prediction']
            self.config = ExportConfig(**json.loads(texts['export']))
        except (KeyError, TypeError, ValueError, SartmError) as error:
            raise SartmError(f'checkpoint {self.path} has damaged metadata: {error}') from error
        self.precision = self.config.precision
        self._require('precision', precision, ('auto', self.precision))
        self._require('head', head, (None, self.head))
        if thermal_settings is not None:
            self.thermal_settings = thermal_settings
        self.homography = homography

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the images that the file takes, which may be some of the network's."""
        return tuple(self.config.sizes)

    @property
    def thermal_settings(self) -> ThermalSettings:
        """How the file reads and scales thermal images; only equal settings can be set."""
        return self.config.thermal_settings

    @thermal_settings.setter
    def thermal_settings(self, settings: ThermalSettings) -> None:
        self.check(settings, None)

    @property
    def homography(self) -> np.ndarray | None:
        """Always None, because an exported file cannot have one."""
        return None

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self.check(self.config.thermal_settings, matrix)

    def check(self, thermal_settings: ThermalSettings, homography: np.ndarray | None) -> None:
        """Raise SartmError unless these are what the file does by itself."""
        own, wanted = self.config.thermal_settings, thermal_settings
        if wanted.mode == own.mode == 'percentile':  # low and high have no effect
            wanted = replace(wanted, low=own.low, high=own.high)
        has_range = any(MODALITIES[name].has_range for name in self.config.sizes)
        if has_range and wanted != own:
            raise SartmError(
                f'checkpoint {self.path} scales thermal by itself: {own.describe()}; set is '
                f'{wanted.describe()}; set what the file does, or export one with --thermal-range, '
                f'--thermal-crop, --thermal-invalid and --thermal-polarity'
            )
        if homography is not None:
            raise SartmError(
                f'checkpoint {self.path} is exported and only resizes thermal; leave the '
                f'homography out, or use the .safetensors checkpoint'
            )

    def predict(
        self,
        images: Images,
        thermal: np.ndarray | None = None,
        *,
        confidence: bool = False,
        overlay: bool = False,
        overlay_opacity: float = 0.5,
        time_s: float | None = None,
        copy: bool = True,
    ) -> Prediction:
        """Segment one frame; arguments and result are those of `Predictor.predict`.

        Raises:
            SartmError: an image has another size, shape or type than the file takes, or the file
                does not take it, or needs one that is missing.
            MemoryError: there is not enough memory.
        """
        clock = StageClock()
        given = check_images(images, thermal, self.modalities)
        feeds = self._feeds(given)
        clock.end_stage('preprocess')
        labels, confidence_image = self._run(feeds)
        clock.end_stage('network')
        blended = None
        if overlay:
            background = self._background(given)
            colors = self.label_space.palette()[labels].astype(np.float32)
            opacity = np.float32(overlay_opacity)
            blended = blend_classes(
                background, labels, colors, opacity, self.label_space.background_id
            ).astype(np.uint8)
        return Prediction(
            labels,
            confidence_image if confidence else None,
            blended,
            clock.stages_s('postprocess'),
        )

    def warm_up(self, height: int, width: int, modalities: Sequence[str] = ()) -> None:
        """Run on blank images of the file's own size; the arguments are those of `Predictor`."""
        self.predict({name: self._blank(name) for name in self.config.sizes})

    def _blank(self, name: str) -> np.ndarray:
        return MODALITIES[name].blank(*self.config.sizes[name], self.config.dtype(name))

    def _feeds(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs of the file; a blank image stands in for a missing one."""
        feeds, sizes = {}, self.config.sizes
        for name in sizes:
            if name in images:
                self._check_image(name, images[name])
                feeds[name] = np.ascontiguousarray(images[name], self.config.dtype(name))
        missing = [name for name in sizes if name not in feeds]
        if not missing:
            return feeds
        if not (feeds and self._may_miss_one):
            raise SartmError(
                f'checkpoint {self.path} takes {" and ".join(sizes)} in every pair, and '
                f'{missing[0]} is missing; export with another --modality, or use the '
                f'.safetensors checkpoint'
            )
        first, given = next(iter(sizes)), next(iter(feeds))
        if (sizes_after_crop := self.config.sizes_after_crop)[given] != sizes_after_crop[first]:
            raise SartmError(
                f'checkpoint {self.path} gives labels of the size of its {first} images; it cannot '
                f'do so of {given} alone, which has another; use a .safetensors checkpoint'
            )
        blanks = {name: self._blank(name) for name in missing}
        present = np.array([name in feeds for name in sizes], np.uint8)
        return {**feeds, **blanks, PRESENT: present}

    def _check_image(self, name: str, image: np.ndarray) -> None:
        """Raise SartmError unless the file takes the image."""
        wanted = self.config.dtype(name)
        is_counts = wanted == 'float32' and 'uint16' in MODALITIES[name].dtypes
        if image.dtype != ('uint16' if is_counts else wanted):
            raise SartmError(
                f'checkpoint {self.path} takes {name} of {wanted}, got '
                f'{image.dtype}; export with --thermal-type {image.dtype}'
            )
        height, width = image.shape[:2]
        size = self.config.sizes[name]
        if (height, width) != size:
            raise SartmError(
                f'checkpoint {self.path} takes {name} images of {size[1]}x{size[0]} pixels, '
                f'got {width}x{height}; export with that size'
            )

    def _run(self, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and confidence; raise MemoryError where ONNX Runtime lacks memory."""
        try:
            labels, confidence = self._session.run(None, feeds)
        except Exception as error:  # it has many, and none for this
            if 'allocate memory' not in str(error):
                raise
            sizes = (f'{n} of {feeds[n].shape[1]}x{feeds[n].shape[0]}' for n in self.config.sizes)
            raise MemoryError(
                f'not enough memory to run checkpoint {self.path} on {" and ".join(sizes)}; '
                f'export it for smaller images'
            ) from error
        return labels, confidence

    def _background(self, images: dict[str, np.ndarray]) -> np.ndarray:
        """Return what an overlay is blended over, float32 `[H, W, 3]` or `[H, W, 1]`."""
        first = next(name for name in self.config.sizes if name in images)
        scaled = self.config.scale(first, images[first])
        return MODALITIES[first].backdrop(scaled).astype(np.float32)

    def _require(self, what: str, wanted: str | None, allowed: tuple[str | None, ...]) -> None:
        if wanted not in allowed:
            raise SartmError(
                f'checkpoint {self.path} was exported with {what} {allowed[1]}, and {wanted} is '
                f'requested; leave it out, or export again'
            )
