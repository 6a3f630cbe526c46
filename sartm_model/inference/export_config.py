"""What an exported ONNX file takes, and the names by which it says so. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sartm_model.data.thermal_range import ThermalRange
from sartm_model.errors import SartmError
from sartm_model.modalities import SELECTIONS

FORMAT = 'sartm-export-1'
"""Value of `format` in the file's metadata; the other entries are `model`, `labels`, `card` and
`export`, each a JSON text."""

OUTPUTS = ('labels', 'confidence')

PRESENT = 'present'
"""The input of a file for both images that says which of them are given; it may be left out."""

THERMAL_TYPES = ('uint8', 'uint16')
PRECISIONS = ('fp32', 'fp16')


@dataclass(frozen=True)
class ExportConfig:
    """The images that an exported file takes; the metadata `export` holds these values.

    Attributes:
        height, width: of the RGB image, pixels; of the thermal image where it is alone.
        modality: 'both', or 'rgb' or 'thermal' alone.
        thermal_height, thermal_width: of the thermal image beside RGB; 0 for those of RGB.
        thermal_type: of its pixels, 'uint8' or 'uint16'.
        thermal_range: mode, low and high of `ThermalRange`.
        precision: of the network, 'fp32' or 'fp16'; images and labels stay uint8.

    Raises:
        SartmError: a value is not one of these, a size is below 1 or the range is empty.
    """

    height: int = 480
    width: int = 640
    modality: str = 'both'
    thermal_height: int = 0
    thermal_width: int = 0
    thermal_type: str = 'uint8'
    thermal_range: tuple[str, float, float] = ('percentile', 0.0, 255.0)
    precision: str = 'fp32'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'thermal_range', tuple(self.thermal_range))  # JSON has lists
        choices = {
            'modality': SELECTIONS,
            'thermal_type': THERMAL_TYPES,
            'precision': PRECISIONS,
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise SartmError(
                    f'export: {key} is {getattr(self, key)!r}; expected {", ".join(allowed)}'
                )
        for name, (height, width) in self.sizes.items():
            if height < 1 or width < 1:
                raise SartmError(
                    f'export: the {name} image is {width}x{height}; expected 1 or more'
                )
        ThermalRange(*self.thermal_range)  # raises where it is empty

    @property
    def range(self) -> ThermalRange:
        """How thermal counts are scaled."""
        return ThermalRange(*self.thermal_range)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each input by its name, in the file's order."""
        rgb = self.height, self.width
        thermal = self.thermal_height or self.height, self.thermal_width or self.width
        if self.modality == 'both':
            return {'rgb': rgb, 'thermal': thermal}
        return {self.modality: rgb}

    def dtype(self, name: str) -> str:
        """Return the type of an input's pixels."""
        return 'uint8' if name == 'rgb' else self.thermal_type
