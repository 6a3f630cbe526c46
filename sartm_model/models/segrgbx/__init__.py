"""SegRGB-X, one network for RGB and any second sensor (arXiv 2603.28023)."""

from sartm_model.models.segrgbx.model import Segrgbx

__all__ = ['Segrgbx']
