"""The modalities: the kinds of images that a network can be given, by name.

Data sets, samples, training, inference and evaluation look up what they need to know of an image
in `MODALITIES`, and know none of its entries themselves. A new kind of sensor is one file here and
one entry of the table.
"""

from __future__ import annotations

from sartm_model.modalities.base import Modality
from sartm_model.modalities.rgb import Rgb
from sartm_model.modalities.thermal import Thermal

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (Rgb(), Thermal())}
"""The modalities by name. The first one here that a frame has sets the frame's geometry."""

SELECTIONS = ('both', 'rgb', 'thermal')
"""Both images of a pair, or one of them alone."""

DESCRIPTIONS = {'both': 'RGB and thermal', 'rgb': 'RGB alone', 'thermal': 'thermal alone'}
"""Text for each selection, for messages and reports."""
