"""Runs a checkpoint on numpy images: one transfer to the device, all pixel work there, one back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sartm_model.data.transforms import warp_matrix
from sartm_model.errors import SartmError
from sartm_model.inference.choices import (
    PRECISIONS,
    choose_device,
    choose_engine,
    choose_precision,
)
from sartm_model.inference.compiled import (
    CannotCompileError,
    CompiledNetwork,
    use_cache_folder,
)
from sartm_model.inference.cuda_graph import CudaGraphCache, prepare_for_graph
from sartm_model.inference.pipeline import (
    InferencePipeline,
    NetworkInputs,
    OutputRequest,
    pack_frame_params,
    unpack_frame_params,
)
from sartm_model.inference.prediction import (
    Images,
    Prediction,
    check_images,
    check_orientation,
)
from sartm_model.inference.stage_clock import StageClock
from sartm_model.inference.transfer import frame_to_device, to_host
from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES, check_registered
from sartm_model.modalities.thermal_range import ema_weight
from sartm_model.modalities.thermal_settings import (
    ThermalSettings,
    crop_image,
    homography_after_crop,
)
from sartm_model.models import checkpoint as checkpoints
from sartm_model.registration.homography import check_homography
from sartm_model.utils.parallel import ParallelRunner
from sartm_model.utils.text import compare_classes

_log = logging.getLogger(__name__)


class Predictor:
    """A checkpoint ready to run. One thread at a time may call it.

    Args:
        checkpoint: a SARTM `.safetensors` file, or one that comes with the package: 'demo' for RGB
            and thermal, 'demo_depth' for RGB and depth.
        device: 'auto' (CUDA where there is a GPU), 'cpu', 'cuda' or 'cuda:1'.
        precision: 'auto' (fp16 on CUDA, fp32 on the CPU), 'fp16', 'bf16' or 'fp32'.
        thermal_settings: how thermal images are read and scaled; may be set between two calls.
        head: 'mean' of the heads' probabilities, or the name of one head, 'mask' or 'auxiliary'
            in sartm; the checkpoint's own setting where left out.
        homography: `[3, 3]`, thermal pixel -> RGB pixel, as in `registration.homography`. Without
            it thermal is resized to the RGB image. May be set between two calls. For a network of
            other modalities it goes from the second image of a frame to the network's first
            modality, and applies to frames that have an image of that.
        engine: how the network is run.

            - 'auto': 'graph' on CUDA, 'parallel' on a CPU of several cores, else 'eager'.
            - 'eager': one operation after another.
            - 'graph': records a CUDA graph for each kind of pair, with independent parts of
              the network on streams of their own.
            - 'parallel' (CPU): runs independent parts of the network at once, each on half of the
              cores.
            - 'compile': compiles the network with `torch.compile`, then runs it as 'graph' does on
              CUDA and as 'eager' does on a CPU. If it cannot be compiled, that is logged, and
              'auto' applies.
        label_space: one that the checkpoint's unifies; its classes alone are then predicted. The
            checkpoint's own where left out.

    Attributes:
        pipeline: the network with its preprocessing and postprocessing.
        label_space: the classes that are predicted.
        device, precision, head, engine: as chosen.
        compiled_folder: where the engine 'compile' keeps its code for the next start, else None.

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
        thermal_settings: ThermalSettings | None = None,
        head: str | None = None,
        homography: np.ndarray | None = None,
        engine: str = 'auto',
        label_space: LabelSpace | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        engine = choose_engine(engine, self.device)
        self.thermal_settings = thermal_settings or ThermalSettings()
        self.homography = homography
        self._previous_s: float | None = None  # time of the previous pair, if it had one
        loaded = checkpoints.load(checkpoint)
        if head is not None:
            loaded = replace(loaded, config=replace(loaded.config, prediction=head))
        check_registered(loaded.config.modalities)
        self.head = loaded.config.prediction
        self.label_space = label_space or loaded.label_space
        model = checkpoints.build(loaded, for_gpu=self.device.type == 'cuda')
        model = model.to_precision(PRECISIONS[self.precision]).to(self.device)
        if self.label_space.classes != loaded.label_space.classes:
            model.select_classes(_ids_of(self.label_space, loaded))
        self.pipeline = InferencePipeline(model, self.label_space)
        self._use_engine(engine)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the images that the network takes; the first one sets the geometry."""
        return tuple(self.pipeline.model.config.modalities)

    @property
    def homography(self) -> np.ndarray | None:
        """Thermal pixel -> RGB pixel, `[3, 3]`, or None where thermal is only resized."""
        return self._homography

    @homography.setter
    def homography(self, matrix: np.ndarray | None) -> None:
        self._homography = None if matrix is None else check_homography(matrix)

    def check(self, thermal_settings: ThermalSettings, homography: np.ndarray | None) -> None:
        """Raise SartmError unless both could be set; `OnnxPredictor` can take fewer."""
        if homography is not None:
            check_homography(homography)

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
        """Segment one frame.

        `predict(rgb, thermal)` is short for `predict({'rgb': rgb, 'thermal': thermal})`.

        Args:
            images: one or more of the network's modalities by name, None for a missing image; each
                is a raw image of its modality, see `MODALITIES`. All show the same field of view,
                but for the second one if a homography is set. The first modality of the network
                that is given sets the size of the result. Or just the RGB image, uint8 `[H, W, 3]`,
                or None. A BGR image may be given as `bgr[..., ::-1]`, without a copy.
            thermal: the thermal image, uint8 or uint16 `[h, w]`, or None.
            confidence: also return the confidence.
            overlay: also return the overlay, over the first image.
            overlay_opacity: 0 (image only) to 1 (colours only).
            time_s: time of the images in a video, in seconds, if `thermal_settings` has a
                `smoothing_s`. Without it the result depends on this frame alone.
            copy: with False the arrays of the result may be overwritten by the next call, which
                saves a copy of them.

        Raises:
            SartmError: an image has another shape or type, none is given, the network lacks its
                modality, or the homography does not go with the size of the first image.
        """
        given = check_images(images, thermal, self.modalities)
        given, packed_params, request = self._frame_request(given, time_s, overlay_opacity)
        request = request._replace(confidence=confidence, overlay=overlay)
        try:
            return self._run(given, packed_params, request, copy)
        except CannotCompileError as error:
            self._use_engine(choose_engine('auto', self.device))
            _log.warning('engine %s is used, because of compile: %s', self.engine, error)
            return self._run(given, packed_params, request, copy)

    def preprocess(
        self, images: Images, thermal: np.ndarray | None = None, time_s: float | None = None
    ) -> NetworkInputs:
        """Send a frame to the device and preprocess it at its own size.

        Arguments and errors are those of `predict`.
        """
        given = check_images(images, thermal, self.modalities)
        given, packed_params, request = self._frame_request(given, time_s)
        tensors, params = frame_to_device(given, packed_params, self.device)
        return self.pipeline.preprocess(
            tensors, unpack_frame_params(params), request, full_size=True
        )

    @torch.inference_mode()
    def probabilities(self, images: Mapping[str, Tensor]) -> Tensor:
        """Return the class probabilities, float32 `[K, H, W]`, of preprocessed images."""
        return self.pipeline.model.segment(images)[0]

    @torch.inference_mode()
    def logits(self, images: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the heads, `[heads, K, H, W]`, of preprocessed images."""
        return self.pipeline.model.segment_logits(images)[:, 0]

    def warm_up(self, height: int, width: int, modalities: Sequence[str] = ()) -> None:
        """Run on blank images, so that the first frames need not allocate or record a graph.

        With the engine 'graph' this records labels alone, of frames with each type of image that
        the modalities have, and of the first modality alone, which is what is left when the second
        camera stalls. The range mode and the homography that are set now are part of it. A
        confidence or an overlay is recorded when it is first requested, and so are images of
        different sizes.

        With the engine 'compile' this also compiles the network for this size, for all modalities
        together and for each alone.

        Args:
            height, width: of all images, pixels.
            modalities: of the frames to expect; all that the network takes where left out.
        """
        names = tuple(modalities) or self.modalities
        kinds = [MODALITIES[name] for name in names]
        frames = [
            {
                kind.name: kind.blank(height, width, dtype)
                for kind, dtype in zip(kinds, dtypes, strict=True)
            }
            for dtypes in product(*(kind.dtypes for kind in kinds))
        ]
        alone = [{name: image} for name, image in frames[0].items()]
        if self._graphs is None:
            frames = frames[:1]
        if self.engine == 'compile':
            frames += alone
        elif self._graphs is not None:
            frames += alone[:1]
        for images in frames:
            self.predict(images, time_s=0.0)
        self._previous_s = None  # blank images have no part in a range

    def _use_engine(self, engine: str) -> None:
        """Prepare the network for an engine, one of those that `choose_engine` returns."""
        self.engine = engine
        self._graphs: CudaGraphCache | None = None
        self._runner: ParallelRunner | None = None
        self.compiled_folder: Path | None = None
        self.pipeline.compiled = None
        model = self.pipeline.model
        if engine == 'parallel':
            self._runner = ParallelRunner()
            model.enable_parallel(self._runner)
        if engine == 'graph' or (engine == 'compile' and self.device.type == 'cuda'):
            self._graphs = CudaGraphCache(self.pipeline)
            prepare_for_graph(model, self.device)
        if engine == 'compile':
            self.compiled_folder = use_cache_folder(self.device)
            self.pipeline.compiled = CompiledNetwork(model)

    def _run(
        self,
        images: Mapping[str, np.ndarray],
        packed_params: np.ndarray,
        request: OutputRequest,
        copy: bool,
    ) -> Prediction:
        if self._graphs is not None:
            clock = StageClock()  # the stages within a graph cannot be told apart
            outputs = self._graphs(images, packed_params, request, clock.end_stage, copy=copy)
        else:
            clock = StageClock(self.device if self.device.type == 'cuda' else None)
            tensors, params = frame_to_device(images, packed_params, self.device)

            def run() -> dict[str, np.ndarray]:
                return to_host(self.pipeline(tensors, params, request, clock.end_stage))

            outputs = run() if self._runner is None else self._runner.run(run)
        return Prediction(**outputs, stages_s=clock.stages_s('postprocess'))

    def _frame_request(
        self, images: Mapping[str, np.ndarray], time_s: float | None, overlay_opacity: float = 0.0
    ) -> tuple[dict[str, np.ndarray], np.ndarray, OutputRequest]:
        """Return the images after the crop, the packed frame parameters and the request.

        The frame counts as the previous one from then on.
        """
        settings, homography = self.thermal_settings, self._homography
        with_range = [name for name in images if MODALITIES[name].has_range]
        cropped = {name: crop_image(images[name], settings.crop) for name in with_range}
        images = {**images, **cropped}
        sizes = {name: (image.shape[0], image.shape[1]) for name, image in images.items()}
        first, second = (*images, None)[:2]
        matrix = None
        if homography is not None and first == self.modalities[0] and second is not None:
            checked = check_homography(homography, sizes[first])
            if second in cropped:
                checked = homography_after_crop(checked, settings.crop)
            matrix = warp_matrix(checked, *sizes.pop(second))
        check_orientation(sizes)
        weight = self._advance_range(time_s) if with_range else None
        packed_params = pack_frame_params(
            fixed_range=(settings.low, settings.high),
            range_weight=1.0 if weight is None else weight,
            overlay_opacity=overlay_opacity,
            warp_matrix=matrix,
        )
        request = OutputRequest(warp=matrix is not None)
        if with_range:
            request = request._replace(
                fixed_range=settings.mode == 'fixed',
                smoothed=weight is not None,
                invalid_values=settings.invalid,
                black_hot=settings.black_hot,
            )
        return images, packed_params, request

    def _advance_range(self, time_s: float | None) -> float | None:
        """Return the weight of a frame in the running range; it is then the previous frame.

        None for a frame that is scaled without the running range.
        """
        settings, previous_s = self.thermal_settings, self._previous_s
        # A range that is fixed, or not smoothed, leaves no average behind.
        smoothed = settings.mode != 'fixed' and settings.smoothing_s > 0
        self._previous_s = time_s if smoothed else None
        if not smoothed or time_s is None:
            return None
        return ema_weight(previous_s, time_s, settings.smoothing_s)


def _ids_of(label_space: LabelSpace, checkpoint: checkpoints.Checkpoint) -> tuple[int, ...]:
    """Return the ids of a label space's classes in a checkpoint that knows others, too."""
    ids = checkpoint.label_space.ids_of(label_space)
    if ids is None:
        unified = [view.space.name for view in checkpoint.label_space.views]
        views = f' and of its views {", ".join(unified)}' if unified else ''
        raise SartmError(
            f'checkpoint {checkpoint.path} knows the classes of {checkpoint.label_space.name!r}'
            f'{views}, but those of {label_space.name!r} are asked for: '
            f'{compare_classes(checkpoint.label_space, label_space)}'
        )
    return ids
