"""The network of the paper, a file a part."""

from sartm_model.network.sartm import Sartm, SartmOutput

__all__ = ['Sartm', 'SartmOutput']
