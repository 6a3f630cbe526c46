"""The interface of every data set: a sequence of named frames of aligned images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator

from sartm_model.data.frame import Frame
from sartm_model.labels import LabelSpace


class FrameDataset(ABC):
    """A finite sequence of frames, each of which is read or generated when it is indexed.

    Attributes:
        label_space: the classes that the ids in the labels stand for.
        names: the name of each frame; no two are equal.
    """

    label_space: LabelSpace
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Frame:
        """Return the frame at `index`. Raises SartmError, naming the file, if one is unusable."""

    def with_modalities(self, modalities: Collection[str]) -> FrameDataset:
        """Return the data set for a use that needs images of these modalities alone.

        Frames may have more images than these. Generated frames have just these; SartmError is
        raised where they cannot have one.
        """
        return self

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))
