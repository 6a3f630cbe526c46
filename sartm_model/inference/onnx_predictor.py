"""Runs a file of `sartm export` by ONNX Runtime, with the public face of `Predictor`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sartm_model.data.transforms import ThermalRange
from sartm_model.errors import SartmError
from sartm_model.inference.stage_clock import StageClock
from sartm_model.labels import LabelSpace
from sartm_model.utils.text import first_line

if TYPE_CHECKING:
    from sartm_model.inference.predictor import Prediction, Predictor


def open_predictor(checkpoint: str | Path, **settings: Any) -> Predictor | OnnxPredictor:
    """What runs a checkpoint: `Predictor`, or `OnnxPredictor` where the name ends in `.onnx`.

    Args:
        checkpoint: a file, or 'demo'.
        settings: the keyword arguments of `Predictor`.

    Raises:
        SartmError: as either does.
    """
    if Path(checkpoint).suffix == '.onnx':
        return OnnxPredictor(checkpoint, **settings)
    from sartm_model.inference.predictor import Predictor

    return Predictor(checkpoint, **settings)


class OnnxPredictor:
    """An exported network ready to run. Scaling of thermal, head and precision are the file's.

    Args:
        checkpoint: an `.onnx` file that `sartm export` has written.
        device: 'auto' (CUDA where ONNX Runtime has it), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto', or that of the file.
        thermal_range: None, or that of the file.
        head: None, or that of the file.
        homography: as of `Predictor`; thermal is then warped before it is given to the file.
        threads: of the CPU; 0 for one a core.

    Raises:
        SartmError: ONNX Runtime is missing, the file is not one of `sartm export`, the device is
            not there, or the file was made with another precision, range or head.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        thermal_range: ThermalRange | None = None,
        head: str | None = None,
        homography: np.ndarray | None = None,
        threads: int = 0,
    ) -> None:
        from sartm_model.export.exported_model import ExportConfig
        from sartm_model.export.onnx_export import PRESENT

        self.path = Path(checkpoint)
        name, providers = _providers(device)
        self.device = torch.device(name)
        self._session = _open(self.path, providers, threads)
        texts = _metadata(self._session, self.path)
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
        self._range = self.config.range
        if thermal_range is not None:
            self.thermal_range = thermal_range
        self.homography = homography

    @property
    def thermal_range(self) -> ThermalRange:
        """How the file scales thermal counts; only an equal one can be set."""
        return self._range

    @thermal_range.setter
    def thermal_range(self, range_: ThermalRange) -> None:
        self.check(range_, None)

    @property
    def homography(self) -> np.ndarray | None:
        """Thermal pixel -> RGB pixel, `[3, 3]`; an exported file cannot have one."""
        return None

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self.check(self._range, matrix)

    def check(self, thermal_range: ThermalRange, homography: np.ndarray | None) -> None:
        """Raise SartmError unless these are what the file does by itself."""
        fixed = self._range.mode == 'fixed'
        same = thermal_range == self._range if fixed else thermal_range.mode == 'percentile'
        if self.config.modality != 'rgb' and (not same or thermal_range.smoothing_s):
            raise SartmError(
                f'checkpoint {self.path} scales thermal by itself: {_said(self._range)}; the range '
                f'set is {_said(thermal_range)}; set that of the file, or export one with '
                f'--thermal-range'
            )
        if homography is not None:
            raise SartmError(
                f'checkpoint {self.path} is exported and only resizes thermal; leave the '
                f'homography out, or use the .safetensors checkpoint'
            )

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
        """Segment one pair; arguments and result as of `Predictor.predict`.

        Raises:
            SartmError: an image of another size, shape or type than the file takes, or one that it
                does not take, or none that it takes.
            MemoryError: they are larger than there is memory for.
        """
        from sartm_model.inference.predictor import Prediction, check_images

        clock = StageClock(torch.device('cpu'))
        check_images(rgb, thermal)
        feeds = self._feeds({'rgb': rgb, 'thermal': thermal})
        clock.mark('upload')
        found = dict(zip(('labels', 'confidence'), self._run(feeds), strict=True))
        clock.mark('network')
        labels: np.ndarray = found['labels']
        blended = None
        if overlay:
            backdrop = self._backdrop(rgb, thermal)
            blended = _blend(backdrop, labels, self.label_space.palette(), overlay_opacity)
        return Prediction(
            labels, found['confidence'] if confidence else None, blended, clock.seconds('download')
        )

    def warm_up(self, height: int, width: int) -> None:
        """Run once on blank images: of this size, or of the file's own where it has one."""
        sizes = self.config.sizes
        blank = {name: self._blank(name, size) for name, size in sizes.items()}
        self.predict(blank.get('rgb'), blank.get('thermal'))

    def _blank(self, name: str, size: tuple[int, int]) -> np.ndarray:
        return np.zeros((*size, 3) if name == 'rgb' else size, self._type(name))

    def _type(self, name: str) -> Any:
        return np.dtype('uint8' if name == 'rgb' else self.config.thermal_type)

    def _feeds(self, images: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """The images as the file takes them, contiguous; a blank one for one that is missing."""
        feeds, sizes = {}, self.config.sizes
        for name in sizes:
            image = images[name]
            if image is not None:
                self._check(name, image)
                feeds[name] = np.ascontiguousarray(image)
        missing = [name for name in sizes if name not in feeds]
        if not missing:
            return feeds
        if not self._may_miss_one:
            raise SartmError(
                f'checkpoint {self.path} takes {" and ".join(sizes)} in every pair, and '
                f'{missing[0]} is missing; export with another --modality, or use the '
                f'.safetensors checkpoint'
            )
        (given,) = (image.shape[:2] for image in feeds.values())
        if missing == ['rgb'] and given != sizes['rgb']:
            raise SartmError(
                f'checkpoint {self.path} gives labels of the size of its rgb images; it cannot do '
                f'so of thermal alone, which has another; use a .safetensors checkpoint'
            )
        blank = self._blank(missing[0], sizes[missing[0]])
        present = np.array([name in feeds for name in sizes], np.uint8)
        return {**feeds, missing[0]: blank, 'present': present}

    def _check(self, name: str, image: np.ndarray) -> None:
        """Raise SartmError unless the file takes the image."""
        if image.dtype != self._type(name):
            raise SartmError(
                f'checkpoint {self.path} takes {name} of {self._type(name)}, got '
                f'{image.dtype}; export with --thermal-type {image.dtype}'
            )
        height, width = image.shape[:2]
        size = self.config.sizes[name]
        if (height, width) != size:
            raise SartmError(
                f'checkpoint {self.path} takes {name} images of {size[1]}x{size[0]} pixels, '
                f'got {width}x{height}; export with that size'
            )

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Labels and confidence; MemoryError where there is not enough for images of this size."""
        try:
            found: list[np.ndarray] = self._session.run(None, feeds)
        except Exception as error:  # it has many, none for this
            if 'allocate memory' not in str(error):
                raise
            sizes = (f'{n} of {feeds[n].shape[1]}x{feeds[n].shape[0]}' for n in self.config.sizes)
            raise MemoryError(
                f'not enough memory to run checkpoint {self.path} on {" and ".join(sizes)}; it '
                f'grows with the square of the pixels, so give it smaller images'
            ) from error
        return found

    def _backdrop(self, rgb: np.ndarray | None, thermal: np.ndarray | None) -> np.ndarray:
        """What an overlay is laid over, `[H, W, 3]` or `[H, W, 1]`."""
        if rgb is not None and 'rgb' in self.config.sizes:
            return rgb
        from sartm_model.data.transforms import scale_thermal

        assert thermal is not None
        scaled = scale_thermal(torch.from_numpy(np.array(thermal, order='C')), self._range)
        return (scaled.clamp(0, 1) * 255)[..., None].numpy()

    def _require(self, what: str, wanted: str | None, allowed: tuple[str | None, ...]) -> None:
        if wanted not in allowed:
            raise SartmError(
                f'checkpoint {self.path} was exported with {what} {allowed[1]}, and {wanted} is '
                f'asked for; leave it out, or export anew'
            )


def _said(range_: ThermalRange) -> str:
    smoothing = f', smoothed over {range_.smoothing_s:g} s' if range_.smoothing_s else ''
    ends = f' {range_.low:g} to {range_.high:g}' if range_.mode == 'fixed' else ''
    return range_.mode + ends + smoothing


def _blend(
    backdrop: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float
) -> np.ndarray:
    """Class colours over an image, uint8 `[H, W, 3]`; id 0 leaves the image as it is."""
    start = backdrop.astype(np.float32)
    weight = (labels != 0)[..., None] * np.float32(opacity)
    return (start + weight * (palette[labels] - start)).round().astype(np.uint8)


def _providers(device: str) -> tuple[str, list[Any]]:
    """The device's name, and what ONNX Runtime is asked to run on."""
    ort = _runtime()
    has_cuda = 'CUDAExecutionProvider' in ort.get_available_providers()
    if device == 'cpu' or (device == 'auto' and not has_cuda):
        return 'cpu', ['CPUExecutionProvider']
    kind, _, index = device.partition(':')
    if device != 'auto' and (kind != 'cuda' or (index and not index.isdecimal())):
        raise SartmError(f'device {device!r}; expected auto, cpu, cuda or cuda:N')
    if not has_cuda:
        raise SartmError(
            f'device {device!r} is not there: this ONNX Runtime knows no CUDA; use cpu, or install '
            f'onnxruntime-gpu'
        )
    cuda = ('CUDAExecutionProvider', {'device_id': int(index or 0)})
    return 'cuda' if device == 'auto' else device, [cuda, 'CPUExecutionProvider']


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise SartmError('an .onnx checkpoint needs onnxruntime; pip install onnxruntime') from None
    return onnxruntime


def _open(path: Path, providers: list[Any], threads: int) -> Any:
    if not path.is_file():
        raise SartmError(f'no checkpoint {path}; expected an .onnx file written by sartm export')
    ort = _runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Threads that wait would otherwise keep a core busy that the cameras' driver needs.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3  # its warnings are about itself
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # it has many, without a common class
        raise SartmError(
            f'checkpoint {path} is damaged or foreign ({first_line(error)}); expected an .onnx '
            f'file written by sartm export'
        ) from None


def _metadata(session: Any, path: Path) -> dict[str, str]:
    from sartm_model.export.onnx_export import FORMAT

    texts: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if texts.get('format') != FORMAT:
        raise SartmError(
            f'checkpoint {path} has format {texts.get("format")!r}; expected {FORMAT!r}, as sartm '
            f'export writes it'
        )
    return texts
