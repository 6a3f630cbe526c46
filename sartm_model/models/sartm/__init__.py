"""SARTM, the network of the paper: one file per part."""

from sartm_model.models.sartm.model import Sartm

__all__ = ['Sartm']
