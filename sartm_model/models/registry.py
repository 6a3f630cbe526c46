"""The networks by name. To add a family: a folder beside this file, and one line here."""

from __future__ import annotations

from importlib import import_module

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.modalities import check_registered
from sartm_model.models.base import SegmentationModel

MODELS = {
    'sartm': 'sartm_model.models.sartm:Sartm',
    'segformer': 'sartm_model.models.segformer:Segformer',
    'segrgbx': 'sartm_model.models.segrgbx:Segrgbx',
}
"""The value of `model.name` -> module and class. The module is imported when it is first used."""


def model_class(name: str) -> type[SegmentationModel]:
    """Return the class of a family. Raises SartmError with the known names if it is unknown."""
    if name not in MODELS:
        raise SartmError(f'model.name is {name!r}; expected one of {", ".join(MODELS)}')
    module, _, cls = MODELS[name].partition(':')
    return getattr(import_module(module), cls)


def build(config: ModelConfig, num_classes: int) -> SegmentationModel:
    """Build a network with random weights, in the form that is trained.

    Raises:
        SartmError: the name or a modality is unknown, or the family refuses a setting.
    """
    check_registered(config.modalities)
    return model_class(config.name)(config, num_classes)
