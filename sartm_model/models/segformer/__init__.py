"""SegFormer, a network for one modality (Xie et al., NeurIPS 2021)."""

from sartm_model.models.segformer.model import Segformer

__all__ = ['Segformer']
