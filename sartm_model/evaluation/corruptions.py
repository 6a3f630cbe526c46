"""A data set with corrupted images, or with one modality alone, to measure robustness.

The corruptions are those of the modalities, each at five severities. Their random numbers are
seeded with the frame's name: every run and every network gets the same images, and a higher
severity makes the same draw worse.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from dataclasses import replace

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES, check_selection, select
from sartm_model.modalities.base import SEVERITIES


def corruption_names() -> dict[str, tuple[str, str]]:
    """Return the name of each corruption, such as 'thermal_noise' -> ('thermal', 'noise')."""
    return {
        f'{modality.name}_{corruption}': (modality.name, corruption)
        for modality in MODALITIES.values()
        for corruption in modality.corruptions
    }


class CorruptedDataset(FrameDataset):
    """A data set whose images are corrupted, or of which some modalities are kept.

    Args:
        dataset: the original frames; their labels and names are kept.
        modality: the only ones whose images the frames have, see `modalities.select`.
        corruption: one of `corruption_names`, or None.
        severity: 1 to 5; None if and only if there is no corruption.

    Raises:
        SartmError: an unknown value, a severity without a corruption, a corruption without a
            severity, or a corruption of a modality that is left out. When a frame is read: it lacks
            the modality.
    """

    def __init__(
        self,
        dataset: FrameDataset,
        *,
        modality: str = 'both',
        corruption: str | None = None,
        severity: int | None = None,
    ) -> None:
        _check(modality, corruption, severity)
        self.label_space = dataset.label_space
        self.names = dataset.names
        self._dataset = self._whole = dataset
        self._modality = modality
        self._corruption = corruption
        self._severity = severity

    def with_modalities(self, modalities: Collection[str]) -> CorruptedDataset:
        """Return the data set for a use that needs images of these modalities alone."""
        chosen = copy(self)
        chosen._dataset = self._dataset.with_modalities(modalities)
        return chosen

    def __getitem__(self, index: int) -> Frame:
        frame = self._dataset[index]
        if self._corruption is not None and self._severity is not None:
            name, corruption = corruption_names()[self._corruption]

            def earlier(places: int) -> np.ndarray:
                return _image(self._dataset[max(index - places, 0)], name)

            rng = np.random.default_rng(list(f'{self._corruption} {frame.name}'.encode()))
            corrupt = MODALITIES[name].corruptions[corruption]
            image = corrupt(_image(frame, name), self._severity, rng, earlier)
            frame = replace(frame, images={**frame.images, name: image})
        selected = select(self._modality, tuple(frame.images))
        if self._modality != 'both' and len(selected) < len(set(self._modality.split(','))):
            # Only the whole frame tells what else could have been selected.
            check_selection(
                self._modality,
                tuple(self._whole[index].images),
                f'frame {frame.name} has no images of modality',
            )
        return replace(frame, images=frame.select(selected))


def _check(modality: str, corruption: str | None, severity: int | None) -> None:
    check_selection(modality, tuple(MODALITIES), 'modality')
    if corruption is None:
        if severity is not None:
            raise SartmError(f'severity {severity} is given without a corruption; name one')
        return
    names = corruption_names()
    if corruption not in names:
        raise SartmError(f'corruption {corruption!r}; expected one of {", ".join(names)}')
    if severity not in SEVERITIES:
        given = 'no severity' if severity is None else f'severity {severity}'
        raise SartmError(f'{given} is given for the corruption {corruption}; expected 1 to 5')
    if names[corruption][0] not in select(modality, tuple(MODALITIES)):
        raise SartmError(
            f'corruption {corruption} changes an image that modality {modality!r} leaves out; '
            'choose another corruption or modality'
        )


def _image(frame: Frame, name: str) -> np.ndarray:
    if name not in frame.images:
        raise SartmError(
            f'frame {frame.name} has no {MODALITIES[name].title} image that could be corrupted'
        )
    return frame.images[name]
