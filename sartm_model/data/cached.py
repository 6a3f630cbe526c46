"""Frames of a data set that are read or rendered once and kept in memory."""

from __future__ import annotations

import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError

CHUNK = 4
"""Frames that a process reads before it sends them back."""


class CachedFrames(FrameDataset):
    """The frames of another data set, all of which are in memory.

    Processes that are forked later, such as the workers of a data loader on Linux, share the memory
    with this one. Where workers are spawned instead, each of them gets a copy of all frames.

    Args:
        dataset: gives the frames.
        processes: number of processes that read or render them; 0 or 1 for this process alone.
        title: the data set's name in messages.

    Raises:
        SartmError: a frame cannot be read, or a process is killed, as when memory runs out.
    """

    def __init__(self, dataset: FrameDataset, processes: int, title: str) -> None:
        self.label_space = dataset.label_space
        self.names = dataset.names
        progress = {'total': len(dataset), 'desc': title, 'unit': 'frame', 'disable': None}
        if processes <= 1:
            self._frames = list(tqdm(dataset, **progress))
            return
        pool = ProcessPoolExecutor(processes, initializer=_open_reader, initargs=(dataset,))
        try:
            frames = pool.map(_read, range(len(dataset)), chunksize=CHUNK)
            self._frames = list(tqdm(frames, **progress))
        except BrokenProcessPool as error:
            raise SartmError(
                f'a process that read frames of {title} was killed; if memory ran out, cache fewer '
                'frames (frames of the source) or set data.cache=false'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def __getitem__(self, index: int) -> Frame:
        return self._frames[index]


_dataset: FrameDataset
"""The data set of this process, set once: as an argument it would be pickled with each chunk."""


def _open_reader(dataset: FrameDataset) -> None:
    """Keep the data set, and leave Ctrl-C to the parent process, which stops the pool."""
    global _dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _dataset = dataset


def _read(index: int) -> Frame:
    return _dataset[index]
