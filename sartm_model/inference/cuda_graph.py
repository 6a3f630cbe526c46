"""A frame's whole way on a GPU as one CUDA graph: upload, all the work, download.

A GPU is done with a small operation before Python has asked for the next, and a frame has hundreds
of them. A graph is recorded once and then run by a single call. It reads and writes fixed memory,
so each size and type of images, and each set of results asked for, has its own.

Without a GPU the same memory is filled and read and the same functions run one after the other: so
the tests can hold this way against the plain one on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartm_model.inference.pipeline import InferencePipeline, Mark, OutputRequest
from sartm_model.inference.transfer import Staging, pack, unpack

KEPT = 4
"""Graphs held at most; each holds the network's activations at its size."""

WARM_UPS = 3
"""Runs before the recording: in the first ones libraries choose algorithms and allocate."""


class CudaGraph:
    """The recorded way of pairs of one kind.

    Args:
        network: what is recorded.
        rgb, thermal, settings: a first pair and its frame_params; either image may be None.
        asked: what is to be given.
    """

    def __init__(
        self,
        network: InferencePipeline,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        settings: np.ndarray,
        asked: OutputRequest,
    ) -> None:
        self._network = network
        self._asked = asked
        self._staging = Staging.like([rgb, thermal, settings], network.device)
        self._staging.write([rgb, thermal, settings])
        self._graph: torch.cuda.CUDAGraph | None = None
        held = network.held.clone()
        if network.device.type == 'cuda':
            self._record()
        else:
            self._planes = self._run()
            self._pinned_output = pack(self._planes)
        network.held.copy_(held)  # these runs were not the next pair of a video

    def __call__(
        self,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        settings: np.ndarray,
        mark: Mark,
    ) -> dict[str, np.ndarray]:
        """The planes of `InferencePipeline` for a pair of the same kind, as new arrays."""
        self._staging.write([rgb, thermal, settings])
        mark('upload')
        if self._graph is None:
            self._pinned_output.copy_(pack(self._run()))
        else:
            with torch.inference_mode():  # as at the recording, whose memory it may write to
                self._graph.replay()
            torch.cuda.current_stream(self._network.device).synchronize()
        mark('network')
        # The next pair overwrites what was brought.
        return unpack(self._pinned_output.clone(), self._planes)

    def _run(self) -> dict[str, Tensor]:
        self._staging.send()
        rgb, thermal, frame_params = self._staging.read
        assert frame_params is not None
        return self._network(rgb, thermal, frame_params, self._asked)

    @torch.inference_mode()
    def _record(self) -> None:
        device = self._network.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with cudnn_autotune(), torch.cuda.device(device):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    packed = pack(self._run())
            self._pinned_output = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Another thread, of another node in this process, may allocate meanwhile.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode='thread_local'):
                self._planes = self._run()
                self._pinned_output.copy_(pack(self._planes), non_blocking=True)


@contextmanager
def cudnn_autotune() -> Iterator[None]:
    """cuDNN times its algorithms for a convolution that it has not met and takes the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class CudaGraphCache:
    """Records the way of each kind of pair when it first comes and holds those used last.

    Args:
        network: what is recorded.
    """

    def __init__(self, network: InferencePipeline) -> None:
        self._network = network
        self._held: OrderedDict[Any, CudaGraph] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __call__(
        self,
        rgb: np.ndarray | None,
        thermal: np.ndarray | None,
        settings: np.ndarray,
        asked: OutputRequest,
        mark: Mark,
    ) -> dict[str, np.ndarray]:
        """The planes of `InferencePipeline` for a pair, as new arrays; `mark` as there."""
        kind = (_kind(rgb), _kind(thermal), asked)
        frame = self._held.pop(kind, None)
        if frame is None:
            while len(self._held) >= KEPT:
                self._held.popitem(last=False)
            frame = CudaGraph(self._network, rgb, thermal, settings, asked)
        self._held[kind] = frame
        return frame(rgb, thermal, settings, mark)


def _kind(image: np.ndarray | None) -> Any:
    return None if image is None else (image.shape, image.dtype)
