"""The network of the paper, a file a part."""

from sartm_model.models.sartm.model import Sartm, SartmOutput

__all__ = ['Sartm', 'SartmOutput']
