"""What an exported ONNX file takes, and the names by which it says so. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sartm_model.errors import SartmError
from sartm_model.inference.prediction import check_orientation
from sartm_model.modalities import MODALITIES, check_selection, select
from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_range import replace_invalid, scale_thermal
from sartm_model.modalities.thermal_settings import ThermalSettings, crop_image, cropped_size

FORMAT = 'sartm-export-1'
"""Value of `format` in the file's metadata; the other entries are `model`, `labels`, `card` and
`export`, each a JSON text."""

OUTPUTS = ('labels', 'confidence')

PRESENT = 'present'
"""The input of a file for both images that says which of them are given; it may be left out."""

THERMAL_TYPES = ('uint8', 'uint16', 'float32')
PRECISIONS = ('fp32', 'fp16')


@dataclass(frozen=True)
class ExportConfig:
    """The images that an exported file takes; the metadata `export` holds these values.

    Attributes:
        height, width: of the first image, pixels: RGB, or thermal where it is alone.
        modality: 'both' for all of `modalities`, or those of them that the file takes, with commas.
        thermal_height, thermal_width: of the second image; 0 for those of the first.
        thermal_type: of the pixels of thermal, 'uint8' or 'uint16'; 'float32' for counts of 16 bits
            in a runtime without that type, such as TensorRT.
        thermal_range: mode, low and high of `ThermalSettings`.
        thermal_crop, thermal_invalid, thermal_polarity: those of `ThermalSettings`; the file takes
            images as the camera gives them, and crops them itself.
        precision: of the network, 'fp32' or 'fp16'; images and labels stay uint8.
        modalities: of the network, in its order.

    Raises:
        SartmError: a value is not one of these, a size is below 1, the range is empty or has no
            count of 8 bits where thermal is uint8, nothing is left of thermal after the crop, or
            one image is upright and the other is not.
    """

    height: int = 480
    width: int = 640
    modality: str = 'both'
    thermal_height: int = 0
    thermal_width: int = 0
    thermal_type: str = 'uint8'
    thermal_range: tuple[str, float, float] = ('percentile', 0.0, 255.0)
    precision: str = 'fp32'
    modalities: tuple[str, ...] = ('rgb', 'thermal')  # of files written before there were others
    thermal_crop: tuple[int, ...] = (0, 0, 0, 0)
    thermal_invalid: tuple[int, ...] = ()
    thermal_polarity: str = 'white_hot'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'modalities', tuple(self.modalities))
        for name in ('thermal_range', 'thermal_crop', 'thermal_invalid'):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_selection(self.modality, self.modalities, 'export: modality is')
        choices = {
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
        check_orientation(self.sizes_after_crop)
        fixed = self.thermal_settings.fixed_range
        has_range = any(MODALITIES[name].has_range for name in self.sizes)
        if fixed and has_range and self.thermal_type == 'uint8':
            low, high = fixed
            if low >= 255 or high <= 0:
                raise SartmError(
                    f'export: the thermal range is {low:g} to {high:g}, but uint8 thermal images '
                    'have counts from 0 to 255; is --thermal-type uint16 meant?'
                )

    @property
    def thermal_settings(self) -> ThermalSettings:
        """How thermal images are read and scaled."""
        return ThermalSettings(
            *self.thermal_range,
            crop=self.thermal_crop,
            invalid=self.thermal_invalid,
            polarity=self.thermal_polarity,
        )

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each input by its name, in the file's order."""
        first, *others = select(self.modality, self.modalities)
        other_size = self.thermal_height or self.height, self.thermal_width or self.width
        return {first: (self.height, self.width), **dict.fromkeys(others, other_size)}

    @property
    def sizes_after_crop(self) -> dict[str, tuple[int, int]]:
        """Height and width of each image as it is resized. Raises SartmError if one is empty."""
        crop = self.thermal_settings.crop
        return {
            name: cropped_size(size, crop) if MODALITIES[name].has_range else size
            for name, size in self.sizes.items()
        }

    def scale(self, name: str, image: Any) -> Any:
        """Scale a raw image, array or tensor, as the file does."""
        modality, settings = MODALITIES[name], self.thermal_settings
        if self.dtype(name) == 'float32':  # NaN, which equals nothing, is no measurement, as 0 is
            image = replace_invalid(image, image != image, 0.0)
        if not modality.has_range:
            return modality.scale(image)
        return scale_thermal(
            crop_image(to_counts(image), settings.crop),
            settings.fixed_range,
            invalid_values=settings.invalid,
            black_hot=settings.black_hot,
            eight_bits=self.dtype(name) == 'uint8',
        )

    def dtype(self, name: str) -> str:
        """Return the type of an input's pixels."""
        dtypes = MODALITIES[name].dtypes
        if self.thermal_type == 'float32' and 'uint16' in dtypes:
            return 'float32'
        return self.thermal_type if self.thermal_type in dtypes else dtypes[0]
