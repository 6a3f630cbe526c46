"""A data set of frames in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.labels import MFNET, LabelSpace


class FrameList(FrameDataset):
    """The given frames, in their order."""

    def __init__(self, frames: Sequence[Frame], label_space: LabelSpace = MFNET) -> None:
        self.frames = frames
        self.label_space = label_space
        self.names = [frame.name for frame in frames]

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]
