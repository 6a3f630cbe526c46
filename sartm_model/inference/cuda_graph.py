"""Runs a frame on a GPU as one CUDA graph: transfer, preprocessing, network, labels, transfer.

A GPU finishes a small operation before Python has launched the next, and a frame has hundreds of
them. A graph is recorded once and then launched by a single call. It reads and writes fixed memory,
so each size and type of the images and each `OutputRequest` needs its own.

All graphs share one memory pool, because they run one at a time and leave nothing in it that is
needed later: results are copied to the host within the graph. A graph costs its nodes and its
transfer buffers, which is about the size of its images and results, not another copy of the
network's activations.

Without a GPU the same buffers are used and the same functions run one after the other. So the tests
compare this path with the direct one on a CPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.inference.pipeline import InferencePipeline, OutputRequest
from sartm_model.inference.stage_clock import StageCallback
from sartm_model.inference.transfer import Staging, pack, reversed_axes, shapes, unpack
from sartm_model.models.base import SegmentationModel
from sartm_model.utils.grid_cache import hold_cached_tensors
from sartm_model.utils.parallel import CudaStreams

MAX_CACHED_GRAPHS = 16
"""A node needs 12: both images, RGB alone and thermal alone, each with or without confidence and
overlay. The rest is for images of another size."""

WARM_UPS = 3
"""Runs before the recording, in which libraries choose algorithms and allocate."""

_recording_lock = threading.Lock()
"""torch can record one graph at a time in a process: each recording waits for the whole GPU."""


class CudaGraphCache:
    """Records a graph for each kind of frame when it first comes, and keeps the last used ones.

    Args:
        pipeline: what is recorded.
    """

    def __init__(self, pipeline: InferencePipeline) -> None:
        self._pipeline = pipeline
        self._graphs: OrderedDict[Any, CudaGraph] = OrderedDict()
        # Memory of the pool is reused on the stream that freed it, so all record on the same one.
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None
        if pipeline.device.type == 'cuda':
            self._stream = torch.cuda.Stream(pipeline.device)
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(
        self,
        images: Mapping[str, np.ndarray],
        packed_params: np.ndarray,
        request: OutputRequest,
        on_stage_end: StageCallback,
        *,
        copy: bool = True,
    ) -> dict[str, np.ndarray]:
        """Run `InferencePipeline` on a frame and return its outputs; see `CudaGraph` for `copy`."""
        kinds = (
            (name, image.shape, image.dtype, reversed_axes(image)) for name, image in images.items()
        )
        key = (*kinds, request)
        graph = self._graphs.pop(key, None)
        if graph is None:
            while len(self._graphs) >= MAX_CACHED_GRAPHS:
                self._graphs.popitem(last=False)
            graph = CudaGraph(
                self._pipeline, images, packed_params, request, self._stream, self._pool
            )
        self._graphs[key] = graph
        return graph(images, packed_params, on_stage_end, copy=copy)


def prepare_for_graph(model: SegmentationModel, device: torch.device) -> None:
    """Lay a network out as a graph of it runs fastest; it computes the same.

    Channels are last in memory, as cuDNN's half-precision convolutions want them. Streams run what
    is independent in parallel, because one modality or one level alone does not fill a GPU.

    Args:
        model: in its inference form, on the device and in its precision.
        device: where it runs; streams are only used on a GPU.
    """
    if device.type == 'cuda':
        model.enable_parallel(CudaStreams(device))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class CudaGraph:
    """The recorded graph of frames of one kind.

    Args:
        pipeline: what is recorded.
        images, packed_params: of a first frame.
        request: what to return.
        stream: on which to record; None without a GPU.
        pool: of the memory that the graph may use while it runs.
    """

    def __init__(
        self,
        pipeline: InferencePipeline,
        images: Mapping[str, np.ndarray],
        packed_params: np.ndarray,
        request: OutputRequest,
        stream: torch.cuda.Stream | None,
        pool: Any,
    ) -> None:
        self._pipeline = pipeline
        self._request = request
        self._modalities = tuple(images)
        arrays = [*images.values(), packed_params]
        self._staging = Staging(arrays, pipeline.device)
        self._staging.fill(arrays)
        self._graph: torch.cuda.CUDAGraph | None = None
        ranges_before = {name: range_.clone() for name, range_ in pipeline.running_ranges.items()}
        try:
            if stream is None:
                outputs = self._run()
                self._shapes, self._pinned_output = shapes(outputs), pack(outputs).clone()
            else:
                self._record(stream, pool)
        finally:  # these runs were not the next frame of a video
            for name, before in ranges_before.items():
                pipeline.running_ranges[name].copy_(before)

    def __call__(
        self,
        images: Mapping[str, np.ndarray],
        packed_params: np.ndarray,
        on_stage_end: StageCallback,
        *,
        copy: bool = True,
    ) -> dict[str, np.ndarray]:
        """Run a frame of the same kind and return the outputs.

        They are new arrays, or without `copy` views of the memory into which the GPU writes them,
        which the next frame overwrites.
        """
        self._staging.fill([*images.values(), packed_params])
        on_stage_end('preprocess')
        if self._graph is None:
            self._pinned_output.copy_(pack(self._run()))
        else:
            with torch.inference_mode():  # as at the recording, whose memory it may write to
                self._graph.replay()
            torch.cuda.current_stream(self._pipeline.device).synchronize()
        on_stage_end('network')
        output = self._pinned_output.clone() if copy else self._pinned_output
        return unpack(output, self._shapes)

    def _run(self) -> dict[str, Tensor]:
        *tensors, packed_params = self._staging.send()
        images = dict(zip(self._modalities, tensors, strict=True))
        return self._pipeline(images, packed_params, self._request)

    @torch.inference_mode()
    def _record(self, stream: torch.cuda.Stream, pool: Any) -> None:
        device = self._pipeline.device
        stream.wait_stream(torch.cuda.current_stream(device))
        with (
            _recording_lock,
            cudnn_autotune(),
            torch.cuda.device(device),
            hold_cached_tensors() as self._cached_tensors,
        ):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    packed = pack(self._run())
            self._pinned_output = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Another thread, of another node in this process, may run its network meanwhile.
            with torch.cuda.graph(
                graph, pool=pool, stream=stream, capture_error_mode='thread_local'
            ):
                outputs = self._run()
                self._pinned_output.copy_(pack(outputs), non_blocking=True)
        self._shapes = shapes(outputs)
        self._graph = graph


@contextmanager
def cudnn_autotune() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new convolution and take the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
