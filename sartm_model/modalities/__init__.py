"""The modalities: the kinds of images that a network can be given, by name.

Data sets, samples, training, inference and evaluation look up what they need to know of an image
in `MODALITIES`, and know none of its entries themselves. A new kind of sensor is one file here and
one entry of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sartm_model.errors import SartmError
from sartm_model.modalities.base import Modality
from sartm_model.modalities.depth import CodedDepth, Depth, Hha
from sartm_model.modalities.event import Event, EventVoxels3, EventVoxels5
from sartm_model.modalities.lidar import Lidar
from sartm_model.modalities.light_field import LightField, LightFieldRow
from sartm_model.modalities.polarization import Polarization
from sartm_model.modalities.rgb import Rgb
from sartm_model.modalities.thermal import Thermal

MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Rgb(),
        Thermal(),
        Depth(),
        CodedDepth(),
        Hha(),
        Lidar(),
        Event(),
        EventVoxels3(),
        EventVoxels5(),
        Polarization(),
        LightField(),
        LightFieldRow(),
    )
}
"""The modalities by name; the images of a frame of a data set are in this order."""


def check_registered(names: Iterable[str]) -> None:
    """Raise SartmError if a modality is not in `MODALITIES`."""
    for name in names:
        if name not in MODALITIES:
            raise SartmError(
                f'no modality is called {name!r}; expected one of {", ".join(MODALITIES)}'
            )


def select(selection: str, modalities: Sequence[str]) -> tuple[str, ...]:
    """Return what a selection stands for: all modalities for 'both', else those it names.

    A comma separates names, as in 'rgb,depth'. The result has the order of `modalities`.
    """
    named = modalities if selection == 'both' else selection.split(',')
    return tuple(name for name in modalities if name in named)


def check_selection(selection: str, modalities: Sequence[str], what: str) -> None:
    """Raise SartmError, which begins with `what`, if a selection names another modality."""
    if selection != 'both' and not set(selection.split(',')) <= set(modalities):
        raise SartmError(
            f'{what} {selection!r}; expected both, or one or more, with commas, of '
            f'{", ".join(modalities)}'
        )


def describe(selection: str, modalities: Sequence[str]) -> str:
    """Return the text for a selection, such as 'RGB and thermal' or 'thermal alone'."""
    titles = ' and '.join(MODALITIES[name].title for name in select(selection, modalities))
    return titles if selection == 'both' else f'{titles} alone'
